"""Parts of a set that are at hand at a time: windows of a few shards, shuffled anew every epoch; fetched ahead where the set is remote."""

from collections.abc import Callable
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.reading.order import ShuffledStream, Window, WindowedOrder
from lavin_dit.data.reading.shard_cache import ShardCache
from lavin_dit.data.shards.distinct import unique_members
from lavin_dit.data.shards.index import ShardIndex
from lavin_dit.data.shards.shard_set import Clip, Member, ShardSet

Row = TypeVar("Row")
Enter = Callable[[tuple[str, ...], tuple[str, ...]], None]
"""Is told which shards are read now, and which come after them."""


class WindowedStream(Generic[Row]):
    """An endless shuffled stream of an index's rows, a pure function of the seed, which reads a window of shards at a time."""

    def __init__(self, order: WindowedOrder, shards: tuple[str, ...], make: Callable[[int], Row], enter: Enter) -> None:
        """Rows follow the order of the shards; `make` gives one by its number."""
        self._order, self._shards, self._make, self._enter = order, shards, make, enter
        self._starts = np.cumsum(order.counts) - order.counts
        self._window: Window | None = None

    def at(self, position: int) -> Row:
        """The row at a position of the stream; positions mostly rise."""
        window = self._order.window_at(position)
        if window != self._window:
            self._move_to(window)
        shard, place = self._order.at(position)
        return self._make(int(self._starts[shard]) + place)

    def _move_to(self, window: Window) -> None:
        following = self._order.window_at(window.first + window.num_samples)
        # A batch may reach back into the window before.
        before = self._names(self._window) if self._window else ()
        self._enter(self._names(window) + before, self._names(following))
        self._window = window

    def _names(self, window: Window) -> tuple[str, ...]:
        return tuple(self._shards[shard] for shard in window.shards)


class WholeSet:
    """Streams over all of a set, for one that is at hand."""

    def __init__(self, shards: ShardSet, *, seed: int) -> None:
        self.pictures = ShuffledStream(unique_members(shards), seed=seed)
        """Every distinct picture; those of clips only where there are no others."""
        self.clips = ShuffledStream(shards.clips, seed=seed)


class ShardWindows:
    """Streams of a set's pictures and clips, which between them keep two windows of shards of each open, and no others."""

    def __init__(self, shards: ShardSet, *, window_shards: int, seed: int, cache: ShardCache | None = None) -> None:
        """`cache` is what the shards are read through where they are not local; it needs room for three windows of each medium."""
        self._set, self._cache = shards, cache
        self._now: dict[str, tuple[str, ...]] = {}
        self._ahead: dict[str, tuple[str, ...]] = {}
        image, clip = shards.indices["image"], shards.indices.get("clip")
        settings: dict[str, Any] = {"window_shards": window_shards, "seed": seed}
        shown = image if image.num_members or not clip else clip
        order = WindowedOrder(_members_by_shard(shown), **settings)
        self.pictures: WindowedStream[Member] = WindowedStream(order, shown.shards, shown.member, self._enter("pictures"))
        """Every picture, those that several scenes share as often as they do; those of clips only where there are no others."""
        self.clips: WindowedStream[Clip] | None = None
        if clip and clip.num_clips:
            order = WindowedOrder(_rows_by_shard(clip, "clip_samples"), **settings)
            self.clips = WindowedStream(order, clip.shards, clip.clip, self._enter("clips"))

    def _enter(self, stream: str) -> Enter:
        def enter(now: tuple[str, ...], ahead: tuple[str, ...]) -> None:
            for shard in set(self._now.get(stream, ())).difference(now):
                self._set.release(shard)
            self._now[stream], self._ahead[stream] = now, ahead
            if self._cache:
                self._cache.hold(tuple(chain(*self._now.values())), tuple(chain(*self._ahead.values())))

        return enter


def _rows_by_shard(index: ShardIndex, column: str) -> NDArray[np.int64]:
    """How many pairs or clips lie in each shard."""
    return np.bincount(index.columns["sample_shards"][index.columns[column]], minlength=len(index.shards))


def _members_by_shard(index: ShardIndex) -> NDArray[np.int64]:
    numbers = np.diff(index.columns["member_ends"], prepend=0)
    return np.bincount(index.columns["sample_shards"], numbers, len(index.shards)).astype(np.int64)
