"""The index of the shards of one split and medium: which pairs there are and where their pictures lie, in columns that stay on disk.

    samples   names, name_ends      their names, end to end, and where each ends
              sample_shards         number of the shard that each lies in
              sample_ends           where it ends there, in bytes; it begins where the sample before it ends
              member_ends           one past its last member
    members   offsets, sizes, digests
    pairs     pair_samples, pair_members    by group; members (2, t): the frames of the input and of the target
    clips     clip_samples, clip_members    every distinct clip, of pairs or not; members (t,)

A sample is a scene with all that is drawn from it. A group is all pairs of one task from one source, which follow each other in the
order of the shards. The facts beside the columns are the groups with their numbers of pairs, and the shards' names.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.column_files import Columns, open_columns
from lavin_dit.data.shards.digests import DIGEST_BYTES
from lavin_dit.data.shards.tars import BLOCK, Member
from lavin_dit.data.task import Medium
from lavin_dit.errors import InputError

I64, U32, U8 = np.dtype("<i8"), np.dtype("<u4"), np.dtype("u1")
DTYPE_OF_COLUMN: Mapping[str, np.dtype[Any]] = {
    "names": U8,
    "name_ends": I64,
    "sample_shards": U32,
    "sample_ends": I64,
    "member_ends": I64,
    "offsets": I64,
    "sizes": U32,
    "digests": U8,
    "pair_samples": U32,
    "pair_members": U32,
    "clip_samples": U32,
    "clip_members": U32,
}

INDEX_OF_MEDIUM: Mapping[Medium, str] = {"image": "index.safetensors", "clip": "clips.safetensors"}
STEM_OF_MEDIUM: Mapping[Medium, str] = {"image": "shard", "clip": "clips"}
"""What the names of shards begin with."""

Row = TypeVar("Row")
Spans = Sequence[tuple[Callable[[int], Row], range]]


@dataclass(frozen=True)
class Pair:
    """One pair of a task, the scene that it was taken from, and the source that the scene belongs to.

    Pictures are of one frame, clips of 1 + 4k; both have equally many.
    """

    key: str
    task: str
    scene: str
    source: str
    input: tuple[Member, ...]
    target: tuple[Member, ...]


@dataclass(frozen=True)
class Clip:
    """One clip, a picture a frame, and the moving scene that it shows or was drawn from."""

    scene: str
    frames: tuple[Member, ...]


@dataclass(frozen=True)
class Group:
    """The pairs of one task from one source, and which rows of the index they are."""

    task: str
    source: str
    rows: range


class Rows(Sequence[Row], Generic[Row]):
    """Pairs or clips of one or several spans of an index, each made when it is asked for: any number of them costs no memory."""

    def __init__(self, spans: Spans[Row]) -> None:
        self._spans = tuple(span for span in spans if len(span[1]))
        self._ends = list(accumulate(len(rows) for _, rows in self._spans))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, position: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(position, slice):
            return tuple(self._at(number) for number in range(*position.indices(len(self))))
        return self._at(range(len(self))[position])

    def __iter__(self) -> Iterator[Row]:
        for make, rows in self._spans:
            yield from map(make, rows)

    def _at(self, number: int) -> Row:
        span = bisect_right(self._ends, number)
        make, rows = self._spans[span]
        return make(rows[number - self._ends[span]])


class ShardIndex:
    """One file of columns. Everything about a row is found in constant time and memory.

    Raises: InputError naming the file where it is damaged, or contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns, self.facts = open_columns(path)
        try:
            self.shards: tuple[str, ...] = tuple(map(str, self.facts["shards"]))
            self.groups: tuple[Group, ...] = tuple(_groups(self.facts["groups"]))
            _check(self.columns, self.groups, len(self.shards))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(f"{path}: contradicts itself ({error or type(error).__name__}); run prepare again") from error
        self._group_ends = [group.rows.stop for group in self.groups]

    @property
    def num_samples(self) -> int:
        return len(self.columns["sample_ends"])

    @property
    def num_pairs(self) -> int:
        return len(self.columns["pair_samples"])

    @property
    def num_clips(self) -> int:
        return len(self.columns["clip_samples"])

    @property
    def num_members(self) -> int:
        return len(self.columns["offsets"])

    @property
    def digests(self) -> NDArray[np.uint8]:
        """The digest of every member. Shapes: (members, 16). Equal pictures of different scenes have equal ones."""
        return self.columns["digests"]

    def name(self, sample: int) -> str:
        """The name of a sample, which is that of its scene."""
        ends = self.columns["name_ends"]
        return self.columns["names"][ends[sample - 1] if sample else 0 : ends[sample]].tobytes().decode("ascii")

    def pair(self, row: int) -> Pair:
        sample = int(self.columns["pair_samples"][row])
        group, scene = self.groups[bisect_right(self._group_ends, row)], self.name(sample)
        inputs, target = (self._members(members, sample) for members in self.columns["pair_members"][row])
        return Pair(f"{group.task}-{scene}", group.task, scene, group.source, inputs, target)

    def clip(self, row: int) -> Clip:
        sample = int(self.columns["clip_samples"][row])
        return Clip(self.name(sample), self._members(self.columns["clip_members"][row], sample))

    def member(self, number: int) -> Member:
        """One of all members, in the order of the shards."""
        return self._members([number], int(np.searchsorted(self.columns["member_ends"], number, side="right")))[0]

    def _members(self, numbers: Sequence[int] | NDArray[np.uint32], sample: int) -> tuple[Member, ...]:
        offsets, sizes, digests = (self.columns[name] for name in ("offsets", "sizes", "digests"))
        shard = self.shards[self.columns["sample_shards"][sample]]
        return tuple(Member(shard, int(offsets[number]), int(sizes[number]), digests[number].tobytes().hex()) for number in numbers)


def _groups(entries: Sequence[Sequence[Any]]) -> Iterator[Group]:
    first = 0
    for task, source, count in entries:
        yield Group(str(task), str(source), range(first, first + int(count)))
        first += int(count)


def _check(columns: Columns, groups: Sequence[Group], num_shards: int) -> None:
    """Raises: ValueError where a number leads out of the columns, or of where it must lead: nothing is read by such an index."""
    num_samples, num_members = len(columns["sample_ends"]), len(columns["offsets"])
    frames = columns["pair_members"].shape[2], columns["clip_members"].shape[1]
    shapes = {
        "names": (len(columns["names"]),),
        **dict.fromkeys(("name_ends", "sample_shards", "sample_ends", "member_ends"), (num_samples,)),
        **dict.fromkeys(("offsets", "sizes"), (num_members,)),
        "digests": (num_members, DIGEST_BYTES),
        "pair_samples": (groups[-1].rows.stop if groups else 0,),
        "pair_members": (len(columns["pair_samples"]), 2, frames[0]),
        "clip_samples": (len(columns["clip_samples"]),),
        "clip_members": (len(columns["clip_samples"]), frames[1]),
    }
    for name, shape in shapes.items():
        if columns[name].shape != shape or columns[name].dtype != DTYPE_OF_COLUMN[name]:
            raise ValueError(f"column {name} has another size or type than the rest asks for")
    if not columns["names"].tobytes().isascii():
        raise ValueError("column names holds more than plain letters")
    _check_ends("name_ends", columns["name_ends"], len(columns["names"]))
    _check_ends("member_ends", columns["member_ends"], num_members)
    _check_rising("sample_shards", columns["sample_shards"], num_shards)
    _check_apart(columns)
    for group in groups:
        if group.rows.stop < group.rows.start:
            raise ValueError(f"group {group.task} of {group.source} has less than no pairs")
        _check_rising("pair_samples", columns["pair_samples"][group.rows.start : group.rows.stop], num_samples)
    _check_rising("clip_samples", columns["clip_samples"], num_samples)
    for kind in ("pair", "clip"):
        _check_owner(columns, kind)


def _check_ends(name: str, ends: NDArray[np.int64], total: int) -> None:
    last = int(ends[-1]) if len(ends) else 0
    if last != total or (np.diff(ends, prepend=0) < 0).any():
        raise ValueError(f"column {name} does not rise to {total}")


def _check_rising(name: str, numbers: NDArray[np.uint32], limit: int) -> None:
    if len(numbers) and (numbers[-1] >= limit or (numbers[1:] < numbers[:-1]).any()):
        raise ValueError(f"column {name} does not rise, or leaves 0 to {limit - 1}")


def _check_apart(columns: Columns) -> None:
    """Whether the members of a shard follow each other, with room for a header before each."""
    offsets, sizes = columns["offsets"], columns["sizes"]
    shards = np.repeat(columns["sample_shards"], np.diff(columns["member_ends"], prepend=0))
    if (offsets < BLOCK).any() or ((offsets[1:] < offsets[:-1] + sizes[:-1] + BLOCK) & (shards[1:] == shards[:-1])).any():
        raise ValueError("members of a shard overlap")


def _check_owner(columns: Columns, kind: str) -> None:
    """Whether every frame is a member of its own sample."""
    samples, members = columns[f"{kind}_samples"], columns[f"{kind}_members"]
    ends, frames = columns["member_ends"], tuple(range(1, members.ndim))
    begins = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    if (members.min(axis=frames) < begins[samples]).any() or (members.max(axis=frames) >= ends[samples]).any():
        raise ValueError(f"column {kind}_members names members of another sample")
