import threading
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from lavin_dit.training.feed import Feed, micro_ranges
from lavin_dit.training.objective import Cost, Losses, Objective
from lavin_dit.training.processes import Processes

CPU = torch.device("cpu")


class Numbers(Objective[list[int]]):
    """Batches that say what they are; counts how often each was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.asked: list[int] = []
        self.ready = threading.Event()

    def batch(self, step: int, samples: range) -> list[int]:
        self.asked.append(step)
        if step == 13:
            raise OSError("the disk is gone")
        self.ready.set()
        return [100 * step + sample for sample in samples]

    def forward(self, batch: list[int]) -> Losses:
        return Losses(Tensor(batch).mean())

    def cost(self, batch: list[int]) -> Cost:
        return Cost(len(batch), 0.0)


@pytest.mark.parametrize(("world_size", "batch_size", "micro_batch"), [(1, 7, 3), (2, 7, 2), (3, 8, 1), (4, 6, 1), (4, 6, None), (3, 3, 2)])
def test_micro_batches_hold_every_sample_once_in_order_and_are_as_many_everywhere(
    world_size: int, batch_size: int, micro_batch: int | None
) -> None:
    ranges = [micro_ranges(Processes(rank, world_size, CPU), batch_size, micro_batch) for rank in range(world_size)]
    assert list(chain.from_iterable(chain.from_iterable(ranges))) == list(range(batch_size))
    assert len({len(parts) for parts in ranges}) == 1
    assert all(len(part) <= (micro_batch or batch_size) for parts in ranges for part in parts)


def test_weights_add_up_to_the_global_batch_and_an_empty_part_counts_nothing() -> None:
    total = 0.0
    for rank in range(4):
        processes = Processes(rank, 4, CPU)
        with Feed(Numbers(), micro_ranges(processes, 6, 1), 6) as feed:
            parts = feed.take(0, is_last=True)
        assert all(len(part.batch) == 1 for part in parts)
        total += sum(part.weight for part in parts)
    assert total == pytest.approx(1.0)


def test_the_next_position_is_loaded_meanwhile_and_each_one_once() -> None:
    objective = Numbers()
    with Feed(objective, [range(2)], 2) as feed:
        for position in range(3):
            assert feed.take(position, is_last=position == 2)[0].batch == [100 * position, 100 * position + 1]
            objective.ready.clear()
            assert position == 2 or objective.ready.wait(10) or objective.asked[-1] == position + 1
    assert objective.asked == [0, 1, 2]


def test_a_jump_takes_what_was_asked_for_and_not_what_was_loaded() -> None:
    with Feed(Numbers(), [range(2)], 2) as feed:
        feed.take(3, is_last=False)
        assert feed.take(9, is_last=True)[0].batch == [900, 901]


def test_what_goes_wrong_while_loading_is_told_when_it_is_needed() -> None:
    with Feed(Numbers(), [range(2)], 2) as feed:
        feed.take(12, is_last=False)
        with pytest.raises(OSError, match="the disk is gone"):
            feed.take(13, is_last=True)
