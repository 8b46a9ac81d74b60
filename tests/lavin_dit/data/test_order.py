import pytest

from lavin_dit.data.order import sample_at


@pytest.mark.parametrize("count", [1, 7, 50])
def test_every_epoch_visits_each_sample_once(count: int) -> None:
    for epoch in range(3):
        visited = [sample_at(epoch * count + index, count, seed=3) for index in range(count)]
        assert sorted(visited) == list(range(count))


def test_epochs_and_seeds_differ_in_their_order() -> None:
    orders = [[sample_at(epoch * 50 + index, 50, seed=seed) for index in range(50)] for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in orders}) == 3


def test_any_position_can_be_asked_for_first() -> None:
    forwards = [sample_at(position, 10, seed=0) for position in range(40)]
    backwards = [sample_at(position, 10, seed=0) for position in reversed(range(40))]
    assert backwards == forwards[::-1]
