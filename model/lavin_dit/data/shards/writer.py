"""One split of a data set, written by one process; `prepare` writes parts in several and packs them alike."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lavin_dit.data.shards.index import INDEX_OF_MEDIUM, STEM_OF_MEDIUM
from lavin_dit.data.shards.packing import pack
from lavin_dit.data.shards.parts import PartFiles, PartWriter
from lavin_dit.data.shards.picture_files import PictureFormat
from lavin_dit.data.shards.samples import Images, Sample
from lavin_dit.data.task import ClipPair, ImagePair, Medium


class ShardWriter:
    """A context manager that writes one split: shards of at most `shard_bytes` (no sample is torn), and at the end their indices.

    Without a clean exit there is no index.
    """

    def __init__(self, folder: Path, split: str, shard_bytes: int, *, clip_frames: int = 1, photo_format: PictureFormat = "png") -> None:
        self._folder, self._shard_bytes = folder / split, shard_bytes
        self._num_frames: dict[Medium, int] = {"image": 1, "clip": clip_frames}
        self._photo_format = photo_format
        self._parts_folder = folder / f".parts-{split}"
        self._writers: dict[Medium, PartWriter] = {}

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._parts_folder.mkdir()
        self._writer("image")
        return self

    def add(
        self, scene: str, pairs: Mapping[str, ImagePair] | Mapping[str, ClipPair], *, source: str = "scenes", clip: Images | None = None
    ) -> None:
        """Appends a scene's pairs by their task, all pictures or all clips, and its clip where no task is to show it."""
        media: set[Medium] = {"clip" if isinstance(pair, ClipPair) else "image" for pair in pairs.values()} | (
            set() if clip is None else {"clip"}
        )
        (medium,) = media
        self._writer(medium).add(Sample(scene, source, pairs, clip))

    def _writer(self, medium: Medium) -> PartWriter:
        if medium not in self._writers:
            self._writers[medium] = PartWriter(self._files(medium), num_frames=self._num_frames[medium], photo_format=self._photo_format)
        return self._writers[medium]

    def _files(self, medium: Medium) -> PartFiles:
        return PartFiles(self._parts_folder, medium)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for medium, writer in self._writers.items():
            writer.__exit__(kind, error, trace)
            if error is None:
                names = {"stem": STEM_OF_MEDIUM[medium], "index_name": INDEX_OF_MEDIUM[medium]}
                pack([self._files(medium)], self._folder, **names, shard_bytes=self._shard_bytes)
        shutil.rmtree(self._parts_folder)
