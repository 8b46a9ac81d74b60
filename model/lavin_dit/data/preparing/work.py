"""The work of making a data set, cut into parts: which samples each holds, the same for any number of processes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lavin_dit.config import PrepareConfig, SourceConfig
from lavin_dit.data.preparing.material import Material, num_clips, num_scenes, tasks_in, visible, visible_pairs
from lavin_dit.data.raw.pairs import FilePair
from lavin_dit.data.shards.index import STEM_OF_MEDIUM
from lavin_dit.data.shards.shard_set import SPLITS
from lavin_dit.data.task import Medium

PART_PICTURES = 64
"""Of a part's samples, each of which may stand for several pictures of its size: seconds of work, and few enough files for a million."""

Origin = Literal["pairs", "photos", "data set", "scenes", "clips"]
STAGES: Mapping[str, tuple[Origin, ...]] = {
    "read files": ("pairs", "photos", "data set"),
    "render scenes": ("scenes",),
    "render clips": ("clips",),
}
"""In the order in which they are done: a damaged file is found before hours of rendering."""


@dataclass(frozen=True)
class Work:
    """One part: what its samples are made of, and the tasks that are derived from it.

    `items` are groups of the user's pairs of one scene, photographs, items of a data set, or numbers of scenes or clips.
    """

    split: str
    medium: Medium
    number: int
    origin: Origin
    items: Sequence[Any]
    tasks: tuple[str, ...] = ()
    source: SourceConfig | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.split}-{STEM_OF_MEDIUM[self.medium]}-{self.number:06d}"


@dataclass(frozen=True)
class _Stretch:
    """Items that are worked on alike."""

    medium: Medium
    origin: Origin
    items: Sequence[Any]
    tasks: tuple[str, ...] = ()
    source: SourceConfig | None = None


def plan_work(config: PrepareConfig, material: Material) -> tuple[Work, ...]:
    """All parts, in the order of the shards that they become."""
    return tuple(part for split in SPLITS for medium in STEM_OF_MEDIUM for part in _parts(config, material, split, medium))


def scene_indices(split: str, count: int) -> range:
    """Training scenes have even numbers and held-out ones odd ones: neither moves when there are more of the other."""
    first = SPLITS.index(split)
    return range(first, first + len(SPLITS) * count, len(SPLITS))


def _parts(config: PrepareConfig, material: Material, split: str, medium: Medium) -> Iterator[Work]:
    size = max(1, PART_PICTURES // (config.clip_frames if medium == "clip" else 1))
    number = 0
    for stretch in _stretches(config, material, split):
        if stretch.medium != medium:
            continue
        for first in range(0, len(stretch.items), size):
            items = stretch.items[first : first + size]
            yield Work(split, medium, number, stretch.origin, items, stretch.tasks, stretch.source)
            number += 1


def _stretches(config: PrepareConfig, material: Material, split: str) -> Iterator[_Stretch]:
    for medium in STEM_OF_MEDIUM:
        yield _Stretch(medium, "pairs", _by_scene(visible_pairs(config, material), split, medium))
    restored = tasks_in(config, split, lambda task: task.from_photo)
    if restored:
        yield _Stretch("image", "photos", [photo for photo in material.raw.photos if photo.split == split], restored)
    for data_set in material.data_sets:
        items = [item for item in data_set.items if item.split == split]
        for medium in STEM_OF_MEDIUM:
            tasks = visible(config, split, data_set.tasks_of(medium))
            if tasks:
                yield _Stretch(medium, "data set", items, tasks, data_set.config)
    drawn = tasks_in(config, split, lambda task: task.from_scene)
    if drawn:
        yield _Stretch("image", "scenes", scene_indices(split, num_scenes(config)[split]), drawn)
    yield _Stretch("clip", "clips", scene_indices(split, num_clips(config)[split]), tasks_in(config, split, lambda task: task.from_clip))


def _by_scene(pairs: Sequence[FilePair], split: str, medium: Medium) -> list[tuple[FilePair, ...]]:
    """Pairs of one name belong to one sample, whatever their tasks."""
    scenes: dict[str, list[FilePair]] = {}
    for pair in pairs:
        if (pair.split, pair.medium) == (split, medium):
            scenes.setdefault(pair.scene, []).append(pair)
    return [tuple(group) for group in scenes.values()]
