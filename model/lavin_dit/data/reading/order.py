"""The order in which samples are drawn: a pure function of (seed, epoch), so that any step can be started from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

SHARD_STREAM, SAMPLE_STREAM = 1, 2

Row = TypeVar("Row")


def sample_at(position: int, count: int, *, seed: int) -> int:
    """Which of `count` samples stands at a position of the endless shuffled stream; every epoch visits each once."""
    epoch, index = divmod(position, count)
    return int(_permutation(seed, epoch, count)[index])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)


class ShuffledStream(Generic[Row]):
    """An endless shuffled stream of all rows of a list, a pure function of the seed."""

    def __init__(self, rows: Sequence[Row], *, seed: int) -> None:
        self._rows, self._seed = rows, seed

    def at(self, position: int) -> Row:
        """The row at a position of the stream."""
        return self._rows[sample_at(position, len(self._rows), seed=self._seed)]


@dataclass(frozen=True)
class Window:
    """A few shards that are read together, and where their samples stand in the stream."""

    epoch: int
    number: int
    """Within the epoch."""
    shards: tuple[int, ...]
    first: int
    """The stream's position of its first sample."""
    num_samples: int


@dataclass(frozen=True)
class Epoch:
    """The windows of one epoch. Shapes: shards `(s,)`, bounds `(w + 1,)`, positions within the epoch at which windows begin."""

    shards: NDArray[np.int64]
    bounds: NDArray[np.int64]


class WindowedOrder:
    """An endless shuffled stream of samples in shards, of which a window of a few is read at a time; every epoch visits each sample once.

    Every epoch shuffles the shards and cuts them into windows, within which samples are shuffled. Memory is that of a window, whatever
    the number of samples; any position can be asked for first.
    """

    def __init__(self, counts: Sequence[int] | NDArray[np.int64], *, window_shards: int, seed: int) -> None:
        """`counts` are the samples of each shard."""
        self.counts = np.asarray(counts, np.int64)
        self._window_shards, self._seed = window_shards, seed
        self.num_samples = int(self.counts.sum())
        assert self.num_samples > 0
        assert window_shards > 0
        # A batch may reach across the end of a window, or of an epoch.
        self._epoch = lru_cache(maxsize=2)(self._cut_epoch)
        self._shuffled = lru_cache(maxsize=2)(self._shuffle)

    def window_at(self, position: int) -> Window:
        """The window that a position of the stream lies in."""
        number_of_epoch, index = divmod(position, self.num_samples)
        epoch = self._epoch(number_of_epoch)
        number = int(np.searchsorted(epoch.bounds, index, side="right")) - 1
        first, last = (int(bound) for bound in epoch.bounds[number : number + 2])
        shards = epoch.shards[number * self._window_shards : (number + 1) * self._window_shards]
        return Window(number_of_epoch, number, tuple(shards.tolist()), number_of_epoch * self.num_samples + first, last - first)

    def at(self, position: int) -> tuple[int, int]:
        """The sample at a position of the stream: its shard, and its place in it."""
        window = self.window_at(position)
        starts = np.cumsum(self.counts[list(window.shards)])
        row = int(self._shuffled(window)[position - window.first])
        place = int(np.searchsorted(starts, row, side="right"))
        shard = window.shards[place]
        return shard, row - int(starts[place] - self.counts[shard])

    def _cut_epoch(self, number: int) -> Epoch:
        shards = np.random.default_rng([self._seed, SHARD_STREAM, number]).permutation(len(self.counts))
        ends = np.add.accumulate(self.counts[shards])
        last_of_window = np.append(np.arange(self._window_shards - 1, len(shards) - 1, self._window_shards), len(shards) - 1)
        return Epoch(shards, np.concatenate([[0], ends[last_of_window]]))

    def _shuffle(self, window: Window) -> NDArray[np.int32]:
        random = np.random.default_rng([self._seed, SAMPLE_STREAM, window.epoch, window.number])
        return random.permutation(np.arange(window.num_samples, dtype=np.int32))
