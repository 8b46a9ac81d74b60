"""A scene as a sample of a shard: its pairs' distinct pictures as files, and the columns that say where each lies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.column_files import Columns
from lavin_dit.data.shards.digests import DIGEST_BYTES, content_digest
from lavin_dit.data.shards.index import DTYPE_OF_COLUMN
from lavin_dit.data.shards.picture_files import SUFFIX_OF_FORMAT, PictureFormat, encode_picture
from lavin_dit.data.shards.tars import BLOCK, MAX_NAME, tar_entry
from lavin_dit.data.task import PHOTOGRAPHIC_KIND, ClipPair, ImagePair
from lavin_dit.data.tasks import TASKS

PAIRS_FILE = "pairs.json"
CLIP_NAME = "clip"
EXACT_INPUTS = ("demosaicing",)
"""Photographic by kind, but read pixel by pixel: a mosaic does not survive a lossy format."""

Images = NDArray[np.uint8]
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """All pairs of one medium that a scene gives, and its clip where that is to be seen whether or not a task shows it.

    Shapes: clip (t, h, w, 3) uint8.
    """

    name: str
    source: str
    pairs: Mapping[str, ImagePair | ClipPair]
    clip: Images | None = None


class SampleWriter:
    """Appends samples to a stream as a tar without its end mark, and collects their columns.

    Equal samples give equal bytes. Within a sample each distinct picture is encoded and stored once, under the name of its first use.
    """

    def __init__(self, stream: BinaryIO, *, num_frames: int, photo_format: PictureFormat) -> None:
        self._stream, self._num_frames, self._photo_format = stream, num_frames, photo_format
        self._names: list[str] = []
        self._ends: list[int] = []
        self._member_ends: list[int] = []
        self._members: list[tuple[int, int, bytes]] = []
        self._pairs: dict[tuple[str, str], list[tuple[int, Numbers, Numbers]]] = {}
        self._clips: list[tuple[int, Numbers]] = []

    def add(self, sample: Sample) -> None:
        """Appends one sample; what has neither pairs nor a clip is none."""
        files = _Files(sample, self._photo_format, first=len(self._members))
        if files.contents:
            self._note(sample, files)
            self._write(sample.name, files)

    def columns(self) -> tuple[Columns, list[list[Any]]]:
        """The columns of what was added, and the groups' tasks, sources and numbers of pairs."""
        pairs = [pair for group in self._pairs.values() for pair in group]
        names = [name.encode() for name in self._names]
        values: dict[str, Any] = {
            "names": np.frombuffer(b"".join(names), np.uint8),
            "name_ends": np.cumsum([len(name) for name in names]),
            "sample_shards": np.zeros(len(names)),
            "sample_ends": self._ends,
            "member_ends": self._member_ends,
            "offsets": [offset for offset, _, _ in self._members],
            "sizes": [size for _, size, _ in self._members],
            "digests": np.frombuffer(b"".join(digest for _, _, digest in self._members), np.uint8).reshape(-1, DIGEST_BYTES),
            "pair_samples": [sample for sample, _, _ in pairs],
            "pair_members": np.reshape([roles for _, *roles in pairs], (-1, 2, self._num_frames)),
            "clip_samples": [sample for sample, _ in self._clips],
            "clip_members": np.reshape([frames for _, frames in self._clips], (-1, self._num_frames)),
        }
        columns = {name: np.asarray(values[name]).astype(dtype) for name, dtype in DTYPE_OF_COLUMN.items()}
        return columns, [[task, source, len(group)] for (task, source), group in self._pairs.items()]

    def _note(self, sample: Sample, files: "_Files") -> None:
        number = len(self._names)
        self._names.append(sample.name)
        for task, roles in files.pairs.items():
            self._pairs.setdefault((task, sample.source), []).append((number, *roles))
        self._clips += [(number, clip) for clip in files.distinct_clips()]

    def _write(self, name: str, files: "_Files") -> None:
        end = self._ends[-1] if self._ends else 0
        for suffix, content in ((PAIRS_FILE, files.pairs_json()), *files.contents.items()):
            member = f"{name}.{suffix}"
            assert "." not in name, f"{name}: readers of webdataset's layout split names at the first dot"
            assert len(member) <= MAX_NAME, f"{member}: is longer than {MAX_NAME}"
            entry = tar_entry(member, content)
            self._stream.write(entry)
            if suffix != PAIRS_FILE:
                self._members.append((end + BLOCK, len(content), content_digest(content)))
            end += len(entry)
        self._ends.append(end)
        self._member_ends.append(len(self._members))


class _Files:
    """A sample's files by the rest of their names, and the numbers of those that make up its pairs and clips."""

    def __init__(self, sample: Sample, photo_format: PictureFormat, *, first: int) -> None:
        self.contents: dict[str, bytes] = {}
        self._first = first
        self._numbers: dict[tuple[PictureFormat, bytes], int] = {}
        self._clip = () if sample.clip is None else self._store(CLIP_NAME, sample.clip, photo_format)
        self.pairs = {task: self._store_pair(task, pair, photo_format) for task, pair in sample.pairs.items()}

    def distinct_clips(self) -> list[Numbers]:
        clips = [self._clip, *(clip for roles in self.pairs.values() for clip in roles)]
        return list(dict.fromkeys(clip for clip in clips if len(clip) > 1))

    def pairs_json(self) -> bytes:
        """For readers without the index: the files of each task's input and target, in order."""
        names = list(self.contents)
        listed = {task: [[names[number - self._first] for number in role] for role in roles] for task, roles in self.pairs.items()}
        return json.dumps(listed, separators=(",", ":")).encode()

    def _store_pair(self, task: str, pair: ImagePair | ClipPair, photo_format: PictureFormat) -> tuple[Numbers, Numbers]:
        input_format, target_format = _formats(task, photo_format)
        return self._store(f"{task}.input", pair.input, input_format), self._store(f"{task}.target", pair.target, target_format)

    def _store(self, name: str, images: Images, picture_format: PictureFormat) -> Numbers:
        """One picture, or the frames of a clip."""
        if images.ndim == 3:
            return (self._number(f"{name}.{SUFFIX_OF_FORMAT[picture_format]}", images, picture_format),)
        suffix = SUFFIX_OF_FORMAT[picture_format]
        return tuple(self._number(f"{name}.{number:03d}.{suffix}", frame, picture_format) for number, frame in enumerate(images))

    def _number(self, name: str, picture: Images, picture_format: PictureFormat) -> int:
        key = (picture_format, picture.tobytes())
        if key not in self._numbers:
            self._numbers[key] = self._first + len(self.contents)
            self.contents[name] = encode_picture(picture, picture_format)
        return self._numbers[key]


def _formats(task: str, photo_format: PictureFormat) -> tuple[PictureFormat, PictureFormat]:
    """Of a task's inputs and targets; what is not known to be a photograph, such as the user's own tasks', loses nothing."""
    if task not in TASKS:
        return "png", "png"
    kinds = TASKS[task].input_kind, TASKS[task].kind
    inputs, target = (photo_format if kind == PHOTOGRAPHIC_KIND else "png" for kind in kinds)
    return "png" if task in EXACT_INPUTS else inputs, target
