from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.data.reading.order import WindowedOrder, sample_at

COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
MANY = [100] * 10_000
"""A million samples in ten thousand shards."""


def epoch_of(order: WindowedOrder, epoch: int) -> list[tuple[int, int]]:
    return [order.at(position) for position in range(epoch * order.num_samples, (epoch + 1) * order.num_samples)]


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


@given(counts=COUNTS, window_shards=st.integers(1, 5), epoch=st.integers(0, 3))
def test_every_epoch_of_windows_visits_each_sample_once(counts: list[int], window_shards: int, epoch: int) -> None:
    order = WindowedOrder(counts, window_shards=window_shards, seed=1)
    expected = [(shard, place) for shard, count in enumerate(counts) for place in range(count)]
    assert sorted(epoch_of(order, epoch)) == expected


@given(counts=COUNTS, window_shards=st.integers(1, 5), position=st.integers(0, 500))
def test_samples_lie_in_the_shards_of_their_window(counts: list[int], window_shards: int, position: int) -> None:
    order = WindowedOrder(counts, window_shards=window_shards, seed=1)
    window = order.window_at(position)
    assert window.first <= position < window.first + window.num_samples
    assert len(window.shards) <= window_shards
    seen = [order.at(window.first + number) for number in range(window.num_samples)]
    assert sorted(seen) == sorted((shard, place) for shard in window.shards for place in range(counts[shard]))
    following = order.window_at(window.first + window.num_samples)
    assert following.first == window.first + window.num_samples
    assert (following.epoch, following.number) > (window.epoch, window.number)


@given(counts=COUNTS, positions=st.lists(st.integers(0, 500), min_size=1))
def test_any_position_of_windows_can_be_asked_for_first(counts: list[int], positions: list[int]) -> None:
    order = WindowedOrder(counts, window_shards=3, seed=2)
    for position in positions:
        assert order.at(position) == WindowedOrder(counts, window_shards=3, seed=2).at(position)


def test_windows_are_shuffled_within_and_epochs_and_seeds_differ() -> None:
    orders = [epoch_of(WindowedOrder([20] * 6, window_shards=2, seed=seed), epoch) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        changes = sum(first[0] != second[0] for first, second in pairwise(order))
        assert changes > 30, "neighbours come from different shards of a window"


def test_what_is_kept_of_a_million_samples_is_a_window() -> None:
    order = WindowedOrder(MANY, window_shards=20, seed=0)
    positions = np.random.default_rng(0).integers(0, 3_000_000, 50)
    assert all(order.window_at(int(position)).num_samples == 2000 for position in positions)
