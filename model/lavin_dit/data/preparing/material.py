"""What there is to make a data set of: the user's files, published data sets, and how many scenes and clips are to be rendered."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lavin_dit.config import PrepareConfig, SourceConfig
from lavin_dit.data.raw.pairs import PHOTOS, FilePair, RawData, find_raw
from lavin_dit.data.readers.catalogue import check_tasks, find_items
from lavin_dit.data.readers.item import Item
from lavin_dit.data.shards.shard_set import SPLITS, Counts
from lavin_dit.data.task import Medium
from lavin_dit.data.tasks import TASKS, Task, task_of
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet:
    """A published data set: what the parameters say of it, and its items."""

    config: SourceConfig
    items: tuple[Item, ...]

    def tasks_of(self, medium: Medium) -> tuple[str, ...]:
        """Those of its tasks that are of a medium."""
        return tuple(name for name in self.config.tasks if task_of(name).medium == medium)


@dataclass(frozen=True)
class Material:
    """All that is found, by name; nothing of it has been read."""

    raw: RawData
    data_sets: tuple[DataSet, ...]


def find_material(config: PrepareConfig, raw: Path) -> Material:
    """Refuses within a moment what could not be prepared: tasks that do not exist, files that do not follow the layout, no data at all.

    Raises: InputError naming the parameter or the file.
    """
    unknown = [name for name in config.tasks if name not in TASKS]
    if unknown:
        raise InputError(f"prepare.tasks names {', '.join(unknown)}: the tasks known are {', '.join(TASKS)}")
    for source in config.sources:
        check_tasks(source.reader, source.tasks)
    data_sets = tuple(DataSet(source, find_items(source.reader, raw / source.folder)) for source in config.sources)
    folders = {source.folder for source in config.sources}
    found = find_raw(raw, seed=config.seed, test_fraction=config.test_fraction, on_bad=config.on_bad, without=folders)
    material = Material(found, data_sets)
    _check_something(config, material, raw)
    _check_held_out(config, material)
    _check_clips(config, material)
    _check_training_data(config, material, raw)
    return material


def tasks_in(config: PrepareConfig, split: str, is_wanted: Callable[[Task], bool]) -> tuple[str, ...]:
    """Tasks that a split shows: held-out ones are in the test split alone."""
    return visible(config, split, [name for name in config.tasks if is_wanted(TASKS[name])])


def visible(config: PrepareConfig, split: str, names: Iterable[str]) -> tuple[str, ...]:
    """Those of some tasks that a split shows."""
    return tuple(name for name in names if split == "test" or name not in config.held_out_tasks)


def visible_pairs(config: PrepareConfig, material: Material) -> tuple[FilePair, ...]:
    """The user's pairs without those of held-out tasks that lie in a training split."""
    return tuple(pair for pair in material.raw.pairs if visible(config, pair.split, [pair.task]))


def count_material(config: PrepareConfig, material: Material) -> Counts:
    """How many scenes of each task there will be at most, by split.

    Of a published data set every item counts, whether or not it turns out to have annotations for the task.
    """
    counts: Counts = {}

    def count(names: Iterable[str], split: str, number: int) -> None:
        for name in names:
            counts.setdefault(name, dict.fromkeys(SPLITS, 0))[split] += number

    for task, split, _ in {(pair.task, pair.split, pair.scene) for pair in visible_pairs(config, material)}:
        count([task], split, 1)
    for split in SPLITS:
        count(tasks_in(config, split, lambda task: task.from_photo), split, sum(photo.split == split for photo in material.raw.photos))
        count(tasks_in(config, split, lambda task: task.from_scene), split, num_scenes(config)[split])
        count(tasks_in(config, split, lambda task: task.from_clip), split, num_clips(config)[split])
        for data_set in material.data_sets:
            number = sum(item.split == split for item in data_set.items)
            count(visible(config, split, data_set.config.tasks), split, number)
    return dict(sorted(counts.items()))


def num_scenes(config: PrepareConfig) -> dict[str, int]:
    """Rendered scenes by split."""
    return {"train": config.num_train_scenes, "test": config.num_test_scenes}


def num_clips(config: PrepareConfig) -> dict[str, int]:
    """Rendered clips by split."""
    return {"train": config.num_train_clips, "test": config.num_test_clips}


def _check_something(config: PrepareConfig, material: Material, raw: Path) -> None:
    rendered = [*num_scenes(config).values(), *num_clips(config).values()]
    found = material.raw.pairs or material.raw.photos or any(data_set.items for data_set in material.data_sets)
    if not (any(rendered) or found):
        raise InputError(f"{raw}: holds no pairs and no photographs, and prepare.num_train_scenes is 0: there is nothing to learn from")
    if material.raw.photos and not any(TASKS[name].from_photo for name in config.tasks):
        logger.warning("%s: none of prepare.tasks is derived from photographs, they are left out", PHOTOS)


def _check_held_out(config: PrepareConfig, material: Material) -> None:
    known = {*config.tasks, *(pair.task for pair in material.raw.pairs), *(name for source in config.sources for name in source.tasks)}
    unknown = sorted(set(config.held_out_tasks) - known)
    if unknown:
        raise InputError(f"prepare.held_out_tasks names {', '.join(unknown)}: must be among {', '.join(sorted(known))}")
    if known <= set(config.held_out_tasks):
        raise InputError("prepare.held_out_tasks holds out every task: at least one must be left to learn")
    left_out = len(material.raw.pairs) - len(visible_pairs(config, material))
    if left_out:
        logger.warning("held-out tasks: %d pairs of them lie in the training split and are left out; put them under test", left_out)


def _check_clips(config: PrepareConfig, material: Material) -> None:
    if config.clip_frames > 1:
        return
    remedy = "prepare.clip_frames is 1 and must be 1 + 4k with k above 0 (5, 9, 13 ...) for clips"
    for pair in material.raw.pairs:
        if pair.medium == "clip":
            raise InputError(f"{pair.input.label}: is a clip: {remedy}")
    for data_set in material.data_sets:
        for name in data_set.tasks_of("clip"):
            raise InputError(f"prepare.sources: {data_set.config.name} is asked for {name}, a task of clips: {remedy}")


def _check_training_data(config: PrepareConfig, material: Material, raw: Path) -> None:
    for name, numbers in count_material(config, material).items():
        if name not in config.held_out_tasks and not numbers["train"]:
            parameter = "num_train_clips" if task_of(name).medium == "clip" else "num_train_scenes"
            raise InputError(f"{name}: has no training pairs: set prepare.{parameter} above 0 or fill {raw / name / 'train'}")
