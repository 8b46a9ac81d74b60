"""The samples of a part: files read, scenes rendered, and every task's pair derived."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavin_dit.config import PrepareConfig, SourceConfig
from lavin_dit.data.pixels import Picture
from lavin_dit.data.preparing.work import Origin, Work
from lavin_dit.data.raw.pairs import FilePair, Photo, read_clip_pair, read_pair, read_photo
from lavin_dit.data.raw.refusals import Refusals
from lavin_dit.data.readers.catalogue import read_item, read_item_photo, reader_of
from lavin_dit.data.readers.item import Item
from lavin_dit.data.shards.parts import PartFiles, PartWriter
from lavin_dit.data.shards.samples import Sample
from lavin_dit.data.task import ClipPair, ImagePair
from lavin_dit.data.tasks import TASKS, generator_of, pair_of_clip, pair_of_photo, pair_of_scene
from lavin_dit.data.world.clips import render_moving_scene
from lavin_dit.data.world.layout import World
from lavin_dit.data.world.scenes import render_scene

MAX_SAMPLE_NAME = 60
SKIPPED = "skipped"

Pairs = dict[str, ImagePair | ClipPair]


@dataclass(frozen=True)
class Workshop:
    """What it takes to write any part: the parameters, where the user's files lie, and where parts go."""

    config: PrepareConfig
    raw: Path
    parts: Path

    def files_of(self, work: Work) -> PartFiles:
        return PartFiles(self.parts, work.name)

    def num_frames(self, work: Work) -> int:
        """Of each input and target of a part."""
        return self.config.clip_frames if work.medium == "clip" else 1

    def write(self, work: Work) -> None:
        """Writes one part.

        Raises: InputError naming the file that cannot be read, unless prepare.on_bad says to leave it out and note it.
        """
        with PartWriter(self.files_of(work), num_frames=self.num_frames(work), photo_format=self.config.photo_format) as writer:
            part = _Part(self.config, self.raw, work)
            for sample in part.samples():
                writer.add(sample)
            writer.notes[SKIPPED] = part.skipped


class _Part:
    def __init__(self, config: PrepareConfig, raw: Path, work: Work) -> None:
        self._config, self._raw, self._work = config, raw, work
        self.skipped: list[tuple[list[str], str, str]] = []
        """The tasks that lost a pair, what was left out, and why."""

    def samples(self) -> Iterator[Sample]:
        makers: Mapping[Origin, Callable[[Any], Sample]] = {
            "pairs": self._of_pairs,
            "photos": self._of_photo,
            "data set": self._of_item,
            "scenes": self._of_scene,
            "clips": self._of_clip,
        }
        return map(makers[self._work.origin], self._work.items)

    def _of_pairs(self, group: tuple[FilePair, ...]) -> Sample:
        pairs: Pairs = {}
        for pair in group:
            with self._refusable(pair.input.label, [pair.task]):
                pairs[pair.task] = self._read_pair(pair)
        return Sample(group[0].scene, "pairs", pairs)

    def _read_pair(self, pair: FilePair) -> ImagePair | ClipPair:
        resolution, max_megapixels = self._config.resolution, self._config.max_megapixels
        if pair.medium == "clip":
            return read_clip_pair(pair, resolution=resolution, max_megapixels=max_megapixels, num_frames=self._config.clip_frames)
        return read_pair(pair, resolution=resolution, max_megapixels=max_megapixels)

    def _of_photo(self, photo: Photo) -> Sample:
        pairs: Pairs = {}
        with self._refusable(photo.source.label, self._work.tasks):
            picture = read_photo(photo, resolution=self._config.resolution, max_megapixels=self._config.max_megapixels)
            pairs |= self._restored(self._work.tasks, picture, photo.scene)
        return Sample(photo.scene, "photos", pairs)

    def _of_item(self, item: Item) -> Sample:
        source = self._work.source
        assert source is not None
        name = sample_name(source.name, item.scene)
        pairs: Pairs = {}
        with self._refusable(f"{self._raw / source.folder}: {item.label}", self._work.tasks):
            pairs |= self._read_item(source, item, name)
        return Sample(name, source.name, pairs)

    def _read_item(self, source: SourceConfig, item: Item, name: str) -> Pairs:
        folder, given = self._raw / source.folder, reader_of(source.reader).tasks
        resolution, max_megapixels = self._config.resolution, self._config.max_megapixels
        annotated = [task for task in self._work.tasks if task in given]
        restored = [task for task in self._work.tasks if task not in given]
        pairs: Pairs = {}
        if annotated:
            pairs |= read_item(
                source.reader,
                folder,
                item,
                tasks=annotated,
                resolution=resolution,
                max_megapixels=max_megapixels,
                clip_frames=self._config.clip_frames,
            )
        if restored:
            picture = read_item_photo(source.reader, folder, item, resolution=resolution, max_megapixels=max_megapixels)
            pairs |= self._restored(restored, picture, name)
        return pairs

    def _of_scene(self, index: int) -> Sample:
        name = f"scene-{index:07d}"
        scene = render_scene(self._config.seed, index, self._config.resolution, world=self._world())
        return Sample(name, "scenes", {task: pair_of_scene(TASKS[task], scene, self._generator(task, name)) for task in self._work.tasks})

    def _of_clip(self, index: int) -> Sample:
        name = f"clip-{index:07d}"
        moving = render_moving_scene(
            self._config.seed, index, self._config.resolution, num_frames=self._config.clip_frames, world=self._world()
        )
        pairs = {task: pair_of_clip(TASKS[task], moving, self._generator(task, name)) for task in self._work.tasks}
        return Sample(name, "scenes", pairs, clip=np.stack([scene.rgb for scene in moving.frames]))

    def _restored(self, tasks: Iterable[str], picture: Picture, scene: str) -> Pairs:
        return {task: pair_of_photo(TASKS[task], picture, self._generator(task, scene)) for task in tasks}

    def _world(self) -> World:
        return World(difficulty=self._config.difficulty, figures=any(TASKS[name].needs_figures for name in self._config.tasks))

    def _generator(self, task: str, scene: str) -> np.random.Generator:
        return generator_of(self._config.seed, task, scene)

    @contextmanager
    def _refusable(self, label: str, tasks: Iterable[str]) -> Iterator[None]:
        refusals = Refusals(self._config.on_bad)
        with refusals.about(label):
            yield
        self.skipped += [(list(tasks), skipped.label, skipped.reason) for skipped in refusals.skipped]


def sample_name(source: str, scene: str) -> str:
    """The name of a data set's item, unique among all data sets, and short enough for the name of a file in a tar."""
    name = f"{source}-{scene}"
    return name if len(name) <= MAX_SAMPLE_NAME else f"{name[: MAX_SAMPLE_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
