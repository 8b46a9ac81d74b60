"""Finished parts put together: their samples, in order, as shards of about one size, and their columns as one index.

Nothing is encoded again, and no more than one part's columns is in memory. A run that was killed goes on after its last whole shard.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.column_files import Columns, ColumnSpec, create_columns
from lavin_dit.data.shards.digests import DIGEST_BYTES
from lavin_dit.data.shards.index import DTYPE_OF_COLUMN
from lavin_dit.data.shards.parts import PartFiles
from lavin_dit.data.shards.tars import END_OF_TAR
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256

COPY_BYTES = 2**22
COUNTING_COLUMNS = ("names", "sample_ends", "offsets", "pair_samples", "clip_samples")
"""One for each kind of row, by which rows are counted."""
KIND_OF_COLUMN = {
    "names": "names",
    **dict.fromkeys(("name_ends", "sample_shards", "sample_ends", "member_ends"), "sample_ends"),
    **dict.fromkeys(("offsets", "sizes", "digests"), "offsets"),
    **dict.fromkeys(("pair_samples", "pair_members"), "pair_samples"),
    **dict.fromkeys(("clip_samples", "clip_members"), "clip_samples"),
}

GroupKey = tuple[str, str]


def pack(parts: Sequence[PartFiles], folder: Path, *, stem: str, index_name: str, shard_bytes: int) -> dict[str, str]:
    """Writes `<stem>-00000.tar` … of at most `shard_bytes` (no sample is torn) and their index; gives the sha256 of each file by its name.

    The parts' bodies are used up; the same parts give the same bytes.
    """
    plan = _plan(parts, shard_bytes)
    hashes = dict(_write_shards(parts, plan, folder, stem))
    index = folder / index_name
    _write_index(parts, plan, index, list(hashes))
    return {**hashes, index_name: file_sha256(index)}


@dataclass(frozen=True)
class _Plan:
    """Where samples go, when the bodies of all parts are read as one stream."""

    part_ends: NDArray[np.int64]
    """In the stream, in bytes."""
    sample_shards: NDArray[np.uint32]
    sample_ends: NDArray[np.int64]
    """In their shards."""
    shard_ends: NDArray[np.int64]
    """In the stream."""


def _plan(parts: Sequence[PartFiles], shard_bytes: int) -> _Plan:
    ends = [files.open()[0]["sample_ends"] for files in parts]
    part_ends = np.cumsum([int(part[-1]) if len(part) else 0 for part in ends], dtype=np.int64)
    first = np.concatenate([np.zeros(1, np.int64), part_ends])
    stream = np.concatenate([part + start for part, start in zip(ends, first[:-1], strict=True)] or [np.zeros(0, np.int64)])
    shards = _cut(np.diff(stream, prepend=0), shard_bytes - len(END_OF_TAR))
    last_of_shard = np.flatnonzero(np.diff(shards, append=-1))
    shard_ends = stream[last_of_shard]
    return _Plan(part_ends, shards.astype(np.uint32), stream - np.concatenate([np.zeros(1, np.int64), shard_ends])[shards], shard_ends)


def _cut(sizes: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """The shard of each sample: a new one begins where the next sample does not fit. One larger than a shard has its own."""
    shards = np.zeros(len(sizes), np.int64)
    number, used = 0, 0
    for place, size in enumerate(sizes.tolist()):
        if used and used + size > room:
            number, used = number + 1, 0
        used += size
        shards[place] = number
    return shards


def _write_shards(parts: Sequence[PartFiles], plan: _Plan, folder: Path, stem: str) -> Iterator[tuple[str, str]]:
    for number, (begin, end) in enumerate(pairwise([0, *plan.shard_ends.tolist()])):
        path = folder / f"{stem}-{number:05d}.tar"
        yield path.name, file_sha256(path) if path.exists() else _write_shard(parts, plan, path, begin, end)
        used_up = np.searchsorted(plan.part_ends, [begin, end], side="right")
        for files in parts[used_up[0] : used_up[1]]:
            files.body.unlink(missing_ok=True)


def _write_shard(parts: Sequence[PartFiles], plan: _Plan, path: Path, begin: int, end: int) -> str:
    digest = hashlib.sha256()
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as stream:
        for block in _stream(parts, plan, begin, end):
            stream.write(block)
            digest.update(block)
        stream.write(END_OF_TAR)
        digest.update(END_OF_TAR)
    beside.replace(path)
    return digest.hexdigest()


def _stream(parts: Sequence[PartFiles], plan: _Plan, begin: int, end: int) -> Iterator[bytes]:
    """Bytes `begin` to `end` of all bodies, one after the other."""
    number = int(np.searchsorted(plan.part_ends, begin, side="right"))
    while begin < end:
        part_end = int(plan.part_ends[number])
        part_begin = int(plan.part_ends[number - 1]) if number else 0
        yield from _read(parts[number].body, begin - part_begin, min(end, part_end) - part_begin)
        begin, number = min(end, part_end), number + 1


def _read(path: Path, begin: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(begin)
        while begin < end:
            block = stream.read(min(COPY_BYTES, end - begin))
            if not block:
                raise InputError(f"{path}: is shorter than it was written; delete {path.parent} and run prepare again")
            yield block
            begin += len(block)


def _write_index(parts: Sequence[PartFiles], plan: _Plan, path: Path, shards: Sequence[str]) -> None:
    totals, counts, num_frames = _count(parts)
    specs = {name: ColumnSpec(dtype, _shape(name, totals, num_frames)) for name, dtype in DTYPE_OF_COLUMN.items()}
    groups = [[task, source, count] for (task, source), count in counts.items()]
    beside = path.with_name(f".{path.name}.tmp")
    _fill(parts, plan, counts, create_columns(beside, specs, {"groups": groups, "shards": list(shards)}))
    beside.replace(path)


def _shape(name: str, totals: Mapping[str, int], num_frames: int) -> tuple[int, ...]:
    rows = totals[KIND_OF_COLUMN[name]]
    inner = {"digests": (DIGEST_BYTES,), "pair_members": (2, num_frames), "clip_members": (num_frames,)}
    return (rows, *inner.get(name, ()))


def _count(parts: Sequence[PartFiles]) -> tuple[dict[str, int], dict[GroupKey, int], int]:
    """Rows of each kind; pairs by group: tasks by name, each task's sources in the order of the parts; and frames of an input."""
    totals = dict.fromkeys(COUNTING_COLUMNS, 0)
    counts: dict[GroupKey, int] = {}
    num_frames = 1
    for files in parts:
        columns, facts = files.open()
        num_frames = columns["clip_members"].shape[1]
        for name in COUNTING_COLUMNS:
            totals[name] += len(columns[name])
        for task, source, count in facts["groups"]:
            counts[task, source] = counts.get((task, source), 0) + count
    return totals, dict(sorted(counts.items(), key=lambda entry: entry[0][0])), num_frames


def _fill(parts: Sequence[PartFiles], plan: _Plan, counts: Mapping[GroupKey, int], index: Columns) -> None:
    done = dict.fromkeys(COUNTING_COLUMNS, 0)
    next_rows = dict(zip(counts, np.cumsum([0, *counts.values()]).tolist(), strict=False))
    for files in parts:
        part, facts = files.open()
        rows = {kind: slice(first, first + len(part[kind])) for kind, first in done.items()}
        for name, values in _shifted(part, plan, rows).items():
            index[name][rows[KIND_OF_COLUMN[name]]] = values
        _fill_pairs(part, facts["groups"], next_rows, done, index)
        done = {kind: place.stop for kind, place in rows.items()}


def _shifted(part: Columns, plan: _Plan, rows: Mapping[str, slice]) -> Columns:
    """A part's columns, other than those of its pairs, as they are in the index."""
    first = {kind: place.start for kind, place in rows.items()}
    ends = plan.sample_ends[rows["sample_ends"]]
    num_members = np.diff(part["member_ends"], prepend=0)
    return {
        "names": part["names"],
        "name_ends": part["name_ends"] + first["names"],
        "sample_shards": plan.sample_shards[rows["sample_ends"]],
        "sample_ends": ends,
        "member_ends": part["member_ends"] + first["offsets"],
        "offsets": part["offsets"] + np.repeat(ends - part["sample_ends"], num_members),
        "sizes": part["sizes"],
        "digests": part["digests"],
        "clip_samples": part["clip_samples"] + first["sample_ends"],
        "clip_members": part["clip_members"] + first["offsets"],
    }


def _fill_pairs(part: Columns, groups: Sequence[Any], next_rows: dict[GroupKey, int], done: Mapping[str, int], index: Columns) -> None:
    first = 0
    for task, source, count in groups:
        row = next_rows[task, source]
        index["pair_samples"][row : row + count] = part["pair_samples"][first : first + count] + done["sample_ends"]
        index["pair_members"][row : row + count] = part["pair_members"][first : first + count] + done["offsets"]
        next_rows[task, source] = row + count
        first += count
