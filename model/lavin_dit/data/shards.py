"""Tar shards of picture pairs with an index beside them: written with the same bytes every time, read through mmap, always verified.

A split's folder holds `index.json` and `shard-00000.tar` …; members are called `<key>.input.png` and `<key>.target.png`, so that any
reader of webdataset's layout can read a shard without the index.
"""

import hashlib
import io
import json
import mmap
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256

FORMAT = 1
SPLITS = ("train", "test")
MANIFEST_NAME = "manifest.json"
MANIFEST_KEYS = {"format", "resolution", "clip_frames", "tasks", "files"}
INDEX_NAME = "index.json"
FILE_NAME = re.compile(r"(train|test)/(index\.json|shard-\d{5,}\.tar)")
BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)
PNG_LEVEL = 1


@dataclass(frozen=True)
class Member:
    """Where the bytes of one picture lie, and what they must hash to."""

    shard: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Pair:
    """One pair of a task, and the scene that it was taken from."""

    key: str
    task: str
    scene: str
    input: Member
    target: Member


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG. Shapes: (h, w, 3) uint8. Equal pictures give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=PNG_LEVEL)
    return buffer.getvalue()


class ShardWriter:
    """A context manager that writes one split: shards of at most `shard_bytes` (a pair is never torn), and at the end the index."""

    def __init__(self, folder: Path, split: str, shard_bytes: int) -> None:
        self.folder = folder / split
        self.shard_bytes = shard_bytes
        self.pairs: list[Pair] = []
        self._stream: BinaryIO | None = None
        self._num_shards = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, key: str, *, task: str, scene: str, input_png: bytes, target_png: bytes) -> None:
        """Appends one pair."""
        needed = 2 * BLOCK + _padded(len(input_png)) + _padded(len(target_png)) + len(END_OF_TAR)
        stream = self._stream_with_room(needed)
        shard = Path(stream.name).name
        members = [_append(stream, shard, f"{key}.{part}.png", png) for part, png in (("input", input_png), ("target", target_png))]
        self.pairs.append(Pair(key, task, scene, *members))

    def _stream_with_room(self, needed: int) -> BinaryIO:
        if self._stream is not None and self._stream.tell() + needed > self.shard_bytes:
            self._close_shard()
        if self._stream is None:
            self._stream = (self.folder / f"shard-{self._num_shards:05d}.tar").open("wb")
            self._num_shards += 1
        return self._stream

    def _close_shard(self) -> None:
        if self._stream is not None:
            self._stream.write(END_OF_TAR)
            self._stream.close()
            self._stream = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close_shard()
        if error is None:
            _write_json(self.folder / INDEX_NAME, [asdict(pair) for pair in self.pairs])


def write_manifest(folder: Path, *, resolution: int, clip_frames: int, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Writes manifest.json over the splits that `ShardWriter` has left in a folder; `counts` are pairs by task and split."""
    files = {f"{split}/{path.name}": file_sha256(path) for split in SPLITS for path in sorted((folder / split).iterdir())}
    tasks = {task: dict(numbers) for task, numbers in counts.items()}
    _write_json(
        folder / MANIFEST_NAME, {"format": FORMAT, "resolution": resolution, "clip_frames": clip_frames, "tasks": tasks, "files": files}
    )


def verify_shards(folder: Path) -> None:
    """Hashes every file that the manifest lists.

    Raises: InputError naming the first file that is absent or differs.
    """
    for name, sha256 in _read_manifest(folder)["files"].items():
        _check_file(folder / name, sha256)


class ShardSet:
    """The pairs of one split, read in place; every picture's hash is checked before it is decoded.

    Raises: InputError naming the file where the manifest, the index or a shard is absent, damaged, or does not match.
    """

    def __init__(self, folder: Path, split: str) -> None:
        manifest = _read_manifest(folder)
        self.folder = folder / split
        self.resolution: int = manifest["resolution"]
        self.clip_frames: int = manifest["clip_frames"]
        self.tasks: tuple[str, ...] = tuple(sorted(manifest["tasks"]))
        index = f"{split}/{INDEX_NAME}"
        _check_file(folder / index, manifest["files"].get(index))
        self.pairs: tuple[Pair, ...] = tuple(_pair(entry) for entry in _read_json(folder / index))
        self._by_task = {task: tuple(pair for pair in self.pairs if pair.task == task) for task in self.tasks}
        self._keys = {member: pair.key for pair in self.pairs for member in (pair.input, pair.target)}
        self._maps: dict[str, mmap.mmap] = {}

    def pairs_of(self, task: str) -> tuple[Pair, ...]:
        """A task's pairs, in the index's order; none where the task is not in the set."""
        return self._by_task.get(task, ())

    def image(self, member: Member) -> NDArray[np.uint8]:
        """One picture. Shapes: (h, w, 3) uint8."""
        content = self._map(member.shard)[member.offset : member.offset + member.size]
        if hashlib.sha256(content).hexdigest() != member.sha256:
            key = self._keys.get(member, "an unknown pair")
            raise InputError(
                f"{self.folder / member.shard}: the content of {key} does not match its hash in {INDEX_NAME}; run prepare again"
            )
        with Image.open(io.BytesIO(content), formats=["png"]) as picture:
            return np.asarray(picture.convert("RGB"))

    def _map(self, shard: str) -> mmap.mmap:
        if shard not in self._maps:
            self._maps[shard] = _map_file(self.folder / shard)
        return self._maps[shard]

    def close(self) -> None:
        """Releases the shards; the set can be read again afterwards."""
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _append(stream: BinaryIO, shard: str, name: str, content: bytes) -> Member:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    stream.write(header.tobuf(tarfile.USTAR_FORMAT))
    offset = stream.tell()
    stream.write(content + bytes(_padded(len(content)) - len(content)))
    return Member(shard, offset, len(content), hashlib.sha256(content).hexdigest())


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run prepare again") from error


def _pair(entry: dict[str, Any]) -> Pair:
    return Pair(entry["key"], entry["task"], entry["scene"], Member(**entry["input"]), Member(**entry["target"]))


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    manifest = _read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not set(manifest) >= MANIFEST_KEYS:
        raise InputError(f"{path}: is not a manifest of shards in format {FORMAT}; run prepare again")
    strangers = [name for name in manifest["files"] if not FILE_NAME.fullmatch(name)]
    if strangers:
        raise InputError(f"{path}: lists {strangers[0]!r}, which is no file of a set of shards; run prepare again")
    return manifest


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run prepare first") from error


def _check_file(path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise InputError(f"{path}: is missing; run prepare again")
    if file_sha256(path) != sha256:
        raise InputError(f"{path}: does not match its hash in {MANIFEST_NAME}; run prepare again")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
