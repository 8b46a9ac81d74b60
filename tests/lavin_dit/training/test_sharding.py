"""How a network is laid out over processes, seen by one of two whose group answers without the other."""

from collections.abc import Iterator

import pytest
import torch
from torch import distributed
from torch.distributed import HashStore
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from lavin_dit.training.average import MovingAverage
from lavin_dit.training.optimizing import Optimizer
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut, trained_weights
from lavin_dit.training_config import ExecutionConfig
from tests.lavin_dit.training.tiny_run import EXECUTION, OPTIMIZER, Episode

ONE_OF_TWO = Processes(0, 2, torch.device("cpu"), per_node=2)
PARTS = 3


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[None]:
    """DDP's reducer asks more of a group than the one that answers to anything gives: it gets one of a single process."""
    if request.getfixturevalue("sharding") == "none":
        distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    else:
        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    distributed.destroy_process_group()


def laid_out(sharding: str) -> LaidOut:
    return LaidOut(Episode(), ExecutionConfig(**EXECUTION | {"sharding": sharding}), ONE_OF_TWO)


def learn(run: LaidOut, part: int) -> None:
    with run.accumulating(is_last=part + 1 == PARTS):
        run.losses(run.objective.batch(0, range(part, part + 1))).total.backward()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("sharding", ["none"])
def test_gradients_of_copies_travel_with_the_last_part_alone(sharding: str) -> None:
    run, travelled = laid_out(sharding), []

    def travel(part: list[int], bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        travelled.extend(part)
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    now = [0]
    run._call.register_comm_hook(now, travel)
    for now[0] in range(PARTS):
        learn(run, now[0])
    assert set(travelled) == {PARTS - 1}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("sharding", ["full", "hybrid"])
def test_gradients_of_shards_travel_with_the_last_part_alone(sharding: str) -> None:
    run = laid_out(sharding)
    weights = trained_weights(run.objective.network).values()
    for part in range(PARTS):
        assert all(weight.grad is None for weight in weights), "they wait, whole, and none is split yet"
        learn(run, part)
    assert all(isinstance(weight.grad, DTensor) for weight in weights)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("sharding", ["full", "hybrid"])
def test_weights_their_average_and_both_moments_are_held_by_halves(sharding: str) -> None:
    run = laid_out(sharding)
    weights = trained_weights(run.objective.network)
    average = MovingAverage(run.objective.network, 0.9).weights
    moments = Optimizer(run.objective, OPTIMIZER).tensors()
    whole = sum(weight.numel() for weight in trained_weights(Episode().network).values())
    for held, times in ((weights, 1), (average, 1), (moments, 2)):
        parts = [tensor.to_local().numel() for tensor in held.values() if isinstance(tensor, DTensor)]
        assert len(parts) == len(held)
        assert sum(parts) == pytest.approx(times * whole / 2, rel=0.01)
