"""Tar shards of picture pairs and of clips, with an index beside them.

A split's folder holds `index.json` and `shard-00000.tar` …; members are called `<key>.input.png` and `<key>.target.png`, so that any
reader of webdataset's layout can read a shard without the index. Where there are clips, `clips.json` and `clips-00000.tar` … hold them,
a member a frame: `<key>.input.000.png` …, beside which a target has room.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.data.tars import Member as Member
from lavin_dit.data.tars import TarReader, TarWriter
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256

FORMAT = 2
SPLITS = ("train", "test")
MANIFEST_NAME = "manifest.json"
MANIFEST_KEYS = {"format", "resolution", "clip_frames", "tasks", "files"}
INDEX_NAME, CLIP_INDEX_NAME = "index.json", "clips.json"
SHARD_STEM, CLIP_STEM = "shard", "clips"
FILE_NAME = re.compile(r"(train|test)/((index|clips)\.json|(shard|clips)-\d{5,}\.tar)")
PNG_LEVEL = 1


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
    """One clip, a picture a frame, and the moving scene that it shows."""

    key: str
    scene: str
    frames: tuple[Member, ...]


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG. Shapes: (h, w, 3) uint8. Equal pictures give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=PNG_LEVEL)
    return buffer.getvalue()


class ShardWriter:
    """A context manager that writes one split: shards of at most `shard_bytes` (no pair or clip is torn), and at the end the indices."""

    def __init__(self, folder: Path, split: str, shard_bytes: int) -> None:
        self.folder = folder / split
        self.pairs: list[Pair] = []
        self.clips: list[Clip] = []
        self._shards = TarWriter(self.folder, SHARD_STEM, shard_bytes)
        self._clip_shards = TarWriter(self.folder, CLIP_STEM, shard_bytes)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, key: str, *, task: str, scene: str, source: str = "scenes", input_png: bytes, target_png: bytes) -> None:
        """Appends one pair."""
        first, second = self._shards.append({f"{key}.input.png": input_png, f"{key}.target.png": target_png})
        self.pairs.append(Pair(key, task, scene, source, (first,), (second,)))

    def add_clip(self, key: str, *, scene: str, frame_pngs: Sequence[bytes]) -> None:
        """Appends one clip."""
        members = self._clip_shards.append({f"{key}.input.{number:03d}.png": png for number, png in enumerate(frame_pngs)})
        self.clips.append(Clip(key, scene, tuple(members)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shards.close()
        self._clip_shards.close()
        if error is None:
            _write_json(self.folder / INDEX_NAME, [asdict(pair) for pair in self.pairs])
            if self.clips:
                _write_json(self.folder / CLIP_INDEX_NAME, [asdict(clip) for clip in self.clips])


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
    """The pairs and clips of one split, read in place; every picture's hash is checked before it is decoded.

    Raises: InputError naming the file where the manifest, the index or a shard is absent, damaged, or does not match.
    """

    def __init__(self, folder: Path, split: str) -> None:
        manifest = _read_manifest(folder)
        self.folder = folder / split
        self.resolution: int = manifest["resolution"]
        self.clip_frames: int = manifest["clip_frames"]
        self.tasks: tuple[str, ...] = tuple(sorted(manifest["tasks"]))
        self.pairs: tuple[Pair, ...] = tuple(map(_pair, _read_index(folder, f"{split}/{INDEX_NAME}", manifest)))
        clip_index = f"{split}/{CLIP_INDEX_NAME}"
        entries = _read_index(folder, clip_index, manifest) if clip_index in manifest["files"] else []
        self.clips: tuple[Clip, ...] = tuple(map(_clip, entries))
        self._by_task = {task: tuple(pair for pair in self.pairs if pair.task == task) for task in self.tasks}
        self._keys = {member: pair.key for pair in self.pairs for member in pair.input + pair.target}
        self._keys |= {member: clip.key for clip in self.clips for member in clip.frames}
        self._reader = TarReader(self.folder)

    def pairs_of(self, task: str) -> tuple[Pair, ...]:
        """A task's pairs, in the index's order; none where the task is not in the set."""
        return self._by_task.get(task, ())

    def image(self, member: Member) -> NDArray[np.uint8]:
        """One picture, or one frame of a clip. Shapes: (h, w, 3) uint8."""
        return self._reader.picture(member, key=self._keys.get(member, "an unknown pair"))

    def frames(self, members: Sequence[Member]) -> NDArray[np.uint8]:
        """A picture as a clip of one frame, or a clip. Shapes: (t, h, w, 3) uint8."""
        return np.stack([self.image(member) for member in members])

    def close(self) -> None:
        """Releases the shards; the set can be read again afterwards."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _read_index(folder: Path, name: str, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    _check_file(folder / name, manifest["files"].get(name))
    entries: list[dict[str, Any]] = _read_json(folder / name)
    return entries


def _pair(entry: dict[str, Any]) -> Pair:
    names = (entry[name] for name in ("key", "task", "scene", "source"))
    return Pair(*names, *(tuple(Member(**frame) for frame in entry[role]) for role in ("input", "target")))


def _clip(entry: dict[str, Any]) -> Clip:
    return Clip(entry["key"], entry["scene"], tuple(Member(**frame) for frame in entry["frames"]))


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
