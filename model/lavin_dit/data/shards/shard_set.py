"""A data set as tar shards with an index beside them, and a manifest over all.

A split's folder holds `index.safetensors` and `shard-00000.tar` … with pictures, and where there are clips `clips.safetensors` and
`clips-00000.tar` …. A scene is a sample in the layout of webdataset: `<scene>.<task>.<input|target>[.<frame>].<png|webp|jpg>`, each
distinct picture once, and `<scene>.pairs.json`, which says what makes a pair. So shards can be read without their index, too.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from lavin_dit.data.shards.index import INDEX_OF_MEDIUM, Group, Rows, ShardIndex
from lavin_dit.data.shards.index import Clip as Clip
from lavin_dit.data.shards.index import Pair as Pair
from lavin_dit.data.shards.tars import Locate, TarReader
from lavin_dit.data.shards.tars import Member as Member
from lavin_dit.data.task import Medium
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.progress import Progress

FORMAT: Final = 3
SPLITS = ("train", "test")
MANIFEST_NAME = "manifest.json"
FILE_NAME = re.compile(r"(train|test)/((index|clips)\.safetensors|(shard|clips)-\d{5,}\.tar)")

Counts = dict[str, dict[str, int]]


class Manifest(BaseModel):
    """What manifest.json holds; counts are pairs by task or source, and by split, and files are named below its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[3]
    resolution: int
    clip_frames: int
    held_out_tasks: list[str]
    tasks: Counts
    sources: Counts
    files: dict[str, str]


def write_manifest(
    folder: Path,
    *,
    resolution: int,
    clip_frames: int,
    held_out_tasks: Iterable[str] = (),
    sha256: Mapping[str, str] | None = None,
) -> Manifest:
    """Writes manifest.json over the splits of a folder; `sha256`, by name below it, spares reading the files whose hash is known."""
    known = sha256 or {}
    names = [f"{split}/{path.name}" for split in SPLITS for path in sorted((folder / split).iterdir())]
    tasks, sources = count_pairs(folder)
    manifest = Manifest(
        format=FORMAT,
        resolution=resolution,
        clip_frames=clip_frames,
        held_out_tasks=sorted(held_out_tasks),
        tasks=tasks,
        sources=sources,
        files={name: known.get(name) or file_sha256(folder / name) for name in names},
    )
    beside = folder / f".{MANIFEST_NAME}.tmp"
    beside.write_text(json.dumps(manifest.model_dump(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(folder / MANIFEST_NAME)
    return manifest


def count_pairs(folder: Path) -> tuple[Counts, Counts]:
    """Pairs by task and split, and by source and split, from the indices."""
    tasks: Counts = {}
    sources: Counts = {}
    for split in SPLITS:
        for group in _groups(_open_indices(folder / split).values()):
            for counts, name in ((tasks, group.task), (sources, group.source)):
                counts.setdefault(name, dict.fromkeys(SPLITS, 0))[split] += len(group.rows)
    return tasks, sources


def read_manifest(folder: Path) -> Manifest:
    """Raises: InputError where a folder's manifest is absent, not one of this format, or names files that are none of a data set."""
    path = folder / MANIFEST_NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run prepare first") from error
    except ValidationError as error:
        raise InputError(f"{path}: is not a manifest of shards in format {FORMAT}; run prepare again") from error
    strangers = [name for name in manifest.files if not FILE_NAME.fullmatch(name)]
    if strangers:
        raise InputError(f"{path}: lists {strangers[0]!r}, which is no file of a set of shards; run prepare again")
    return manifest


def verify_shards(folder: Path) -> int:
    """Hashes every file that the manifest lists, and returns how many there are.

    Raises: InputError naming the first file that is absent or differs.
    """
    files = read_manifest(folder).files
    with Progress("verify", len(files)) as progress:
        for name, sha256 in files.items():
            _check_file(folder / name, sha256)
            progress.advance()
    return len(files)


class ShardSet:
    """The pairs and clips of one split, read in place; every picture is checked whenever it is read.

    Shards lie beside their index, or wherever `locate` says, which answers for their sha256.
    Raises: InputError naming the file where the manifest, an index or a shard is absent, damaged, or does not match.
    """

    def __init__(self, folder: Path, split: str, *, locate: Locate | None = None) -> None:
        manifest = read_manifest(folder)
        self.folder = folder / split
        self.resolution = manifest.resolution
        self.clip_frames = manifest.clip_frames
        self.tasks = tuple(sorted(manifest.tasks))
        self.indices = _read_indices(folder, split, manifest.files)
        self.shard_sha256 = _shards_of(split, manifest.files)
        """By the names of the shards."""
        self._check_shards_are_listed()
        self._reader = TarReader(locate or (lambda shard: self.folder / shard))

    @property
    def groups(self) -> tuple[tuple[str, str], ...]:
        """Task and source of every group of pairs."""
        return tuple((group.task, group.source) for group in _groups(self.indices.values()))

    @property
    def pairs(self) -> Sequence[Pair]:
        """All pairs, by task and source."""
        return Rows([(index.pair, range(index.num_pairs)) for index in self.indices.values()])

    def pairs_of(self, task: str, source: str | None = None) -> Sequence[Pair]:
        """A task's pairs, of one source or of all, in the order of the shards; none where the task is not in the set."""
        return Rows(
            [
                (index.pair, group.rows)
                for index in self.indices.values()
                for group in index.groups
                if group.task == task and source in (None, group.source)
            ]
        )

    @property
    def clips(self) -> Sequence[Clip]:
        """Every distinct clip: inputs and targets of video tasks, and clips that no task asks for."""
        return Rows([(index.clip, range(index.num_clips)) for index in self.indices.values()])

    def image(self, member: Member) -> NDArray[np.uint8]:
        """One picture, or one frame of a clip. Shapes: (h, w, 3) uint8."""
        return self.decode(member, self.content(member))

    def content(self, member: Member) -> bytes:
        """The bytes of one picture's file."""
        return self._reader.content(member)

    def decode(self, member: Member, content: bytes) -> NDArray[np.uint8]:
        """The picture that a member's content is; threads may do it side by side. Shapes: (h, w, 3) uint8."""
        return self._reader.decode(member, content, resolution=self.resolution)

    def frames(self, members: Sequence[Member]) -> NDArray[np.uint8]:
        """A picture as a clip of one frame, or a clip. Shapes: (t, h, w, 3) uint8."""
        return np.stack([self.image(member) for member in members])

    def release(self, shard: str) -> None:
        """Lets go of one shard's file, so that it can be given up."""
        self._reader.release(shard)

    def close(self) -> None:
        """Releases the shards; the set can be read again afterwards."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_shards_are_listed(self) -> None:
        for index in self.indices.values():
            strangers = sorted(set(index.shards) - set(self.shard_sha256))
            if strangers:
                raise InputError(f"{index.path}: names the shard {strangers[0]!r}, which {MANIFEST_NAME} does not list; run prepare again")


def _groups(indices: Iterable[ShardIndex]) -> list[Group]:
    return [group for index in indices for group in index.groups]


def _open_indices(folder: Path) -> dict[Medium, ShardIndex]:
    paths = {medium: folder / name for medium, name in INDEX_OF_MEDIUM.items()}
    return {medium: ShardIndex(path) for medium, path in paths.items() if path.exists()}


def _read_indices(folder: Path, split: str, files: Mapping[str, str]) -> dict[Medium, ShardIndex]:
    """That of pictures always, that of clips where there are any."""
    wanted = {medium: f"{split}/{name}" for medium, name in INDEX_OF_MEDIUM.items() if medium == "image" or f"{split}/{name}" in files}
    for name in wanted.values():
        _check_file(folder / name, files.get(name))
    return {medium: ShardIndex(folder / name) for medium, name in wanted.items()}


def _shards_of(split: str, files: Mapping[str, str]) -> dict[str, str]:
    names = {name: Path(name) for name in files if name.endswith(".tar")}
    return {path.name: files[name] for name, path in names.items() if path.parent.name == split}


def _check_file(path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise InputError(f"{path}: is missing; run prepare again")
    if file_sha256(path) != sha256:
        raise InputError(f"{path}: does not match its hash in {MANIFEST_NAME}; run prepare again")
