"""prepare: renders scenes and clips, reads the user's pairs and photographs, and writes tar shards with an index and a manifest."""

import logging
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from components.folders import atomic_folder, step_key, write_json
from lavin_dit.config import PrepareConfig
from lavin_dit.data.clips import render_clip
from lavin_dit.data.pairs import PHOTOS, RawData, find_raw, read_pair, read_photo
from lavin_dit.data.scenes import render_scene
from lavin_dit.data.shards import SPLITS, ShardWriter, encode_png, write_manifest
from lavin_dit.data.tasks import TASKS, ImagePair, Task, generator_of, pair_of_photo, pair_of_scene
from lavin_dit.errors import InputError
from lavin_dit.progress import Progress

logger = logging.getLogger(__name__)

INPUTS: tuple[str, ...] = ("raw",)
OUTPUTS: tuple[str, ...] = ("shards",)

MIB = 2**20

Counts = dict[str, dict[str, int]]


def run(config: PrepareConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Prepares the data set; the same section and the same raw data give the same bytes.

    Raises: InputError naming the parameter or the file that does not fit.
    """
    raw = check(config, inputs["raw"])
    with atomic_folder(outputs["shards"], key=step_key(config, inputs)) as folder:
        _clear(folder)
        counts = _write_pairs(config, raw, folder)
        _report_gaps(counts)
        write_manifest(folder, resolution=config.resolution, clip_frames=config.clip_frames, counts=counts)
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / "metrics.json", _metrics(config, counts))


def check(config: PrepareConfig, raw: Path) -> RawData:
    """Refuses within a moment what could not be prepared: tasks that do not exist, files that do not follow the layout, no data at all.

    Raises: InputError naming the parameter or the file.
    """
    unknown = [name for name in config.tasks if name not in TASKS]
    if unknown:
        raise InputError(f"prepare.tasks names {', '.join(unknown)}: the tasks known are {', '.join(TASKS)}")
    found = find_raw(raw, seed=config.seed, test_fraction=config.test_fraction)
    _check_training_data(config, found, raw)
    return found


def count_scenes(config: PrepareConfig, raw: RawData) -> Counts:
    """How many scenes of each task `run` will write, by split: rendered scenes, photographs, and the user's pairs by their names."""
    rendered = {"train": config.num_train_scenes, "test": config.num_test_scenes}
    given = {(pair.task, pair.split, pair.scene) for pair in raw.pairs}
    counts: Counts = {}
    for name in sorted({*config.tasks, *(task for task, _, _ in given)}):
        counts[name] = {split: sum(entry[:2] == (name, split) for entry in given) for split in SPLITS}
        if name in config.tasks:
            for split in SPLITS:
                photos = sum(photo.split == split for photo in raw.photos) if TASKS[name].from_photo else 0
                counts[name][split] += rendered[split] + photos
    return counts


def _check_training_data(config: PrepareConfig, found: RawData, raw: Path) -> None:
    if not (config.num_train_scenes or config.num_test_scenes or found.pairs or found.photos):
        raise InputError(f"{raw}: holds no pairs and no photographs, and prepare.num_train_scenes is 0: there is nothing to learn from")
    has_photos = any(photo.split == "train" for photo in found.photos)
    given = {pair.task for pair in found.pairs if pair.split == "train"}
    for name in sorted({*config.tasks, *(pair.task for pair in found.pairs)}):
        is_derived = name in config.tasks and (config.num_train_scenes > 0 or (has_photos and TASKS[name].from_photo))
        if name not in given and not is_derived:
            raise InputError(f"{name}: has no training pairs: set prepare.num_train_scenes above 0 or fill {raw / name / 'train'}")


def _clear(folder: Path) -> None:
    """What a killed run left is written anew: rendering is quick, and half a shard is worth nothing."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Pairs:
    """Both splits' writers, and how many pairs of each task went into them."""

    def __init__(self, config: PrepareConfig, folder: Path, stack: ExitStack) -> None:
        size = int(config.shard_mib * MIB)
        self.writers = {split: stack.enter_context(ShardWriter(folder, split, size)) for split in SPLITS}
        self.counts: Counts = {}

    def add(self, split: str, scene: str, pairs: Mapping[str, ImagePair]) -> None:
        """Adds one scene's pairs; the picture that several tasks share is encoded once."""
        pngs: dict[int, bytes] = {}
        for task, pair in pairs.items():
            for picture in (pair.input, pair.target):
                if id(picture) not in pngs:
                    pngs[id(picture)] = encode_png(picture)
            content = {"input_png": pngs[id(pair.input)], "target_png": pngs[id(pair.target)]}
            self.writers[split].add(f"{task}-{scene}", task=task, scene=scene, **content)
            self.counts.setdefault(task, dict.fromkeys(SPLITS, 0))[split] += 1


def _write_pairs(config: PrepareConfig, raw: RawData, folder: Path) -> Counts:
    """The user's files first: a damaged one is found before minutes of rendering."""
    with ExitStack() as stack:
        pairs = _Pairs(config, folder, stack)
        _add_files(config, raw, pairs)
        _add_scenes(config, pairs)
        _add_clips(config, pairs)
    return pairs.counts


def _add_files(config: PrepareConfig, raw: RawData, pairs: _Pairs) -> None:
    tasks = [TASKS[name] for name in config.tasks if TASKS[name].from_photo]
    if raw.photos and not tasks:
        logger.warning("%s: none of prepare.tasks is derived from photographs, they are left out", PHOTOS)
    with Progress("read files", len(raw.pairs) + len(raw.photos)) as progress:
        for file_pair in raw.pairs:
            pair = read_pair(file_pair, resolution=config.resolution, max_megapixels=config.max_megapixels)
            pairs.add(file_pair.split, file_pair.scene, {file_pair.task: pair})
            progress.advance()
        for photo in raw.photos if tasks else ():
            picture = read_photo(photo, resolution=config.resolution, max_megapixels=config.max_megapixels)
            derived = {task.name: pair_of_photo(task, picture, _generator(config, task, photo.scene)) for task in tasks}
            pairs.add(photo.split, photo.scene, derived)
            progress.advance()


def _add_scenes(config: PrepareConfig, pairs: _Pairs) -> None:
    tasks = [TASKS[name] for name in config.tasks if TASKS[name].from_scene]
    numbers = {"train": config.num_train_scenes, "test": config.num_test_scenes}
    with Progress("render scenes", sum(numbers.values())) as progress:
        for split, number in numbers.items():
            for count in range(number):
                index = scene_index(split, count)
                rendered = render_scene(config.seed, index, config.resolution)
                scene = f"scene-{index:07d}"
                pairs.add(split, scene, {task.name: pair_of_scene(task, rendered, _generator(config, task, scene)) for task in tasks})
                progress.advance()


def _add_clips(config: PrepareConfig, pairs: _Pairs) -> None:
    numbers = _num_clips(config)
    with Progress("render clips", sum(numbers.values())) as progress:
        for split, number in numbers.items():
            for count in range(number):
                index = scene_index(split, count)
                frames = render_clip(config.seed, index, config.resolution, num_frames=config.clip_frames)
                key = f"clip-{index:07d}"
                pairs.writers[split].add_clip(key, scene=key, frame_pngs=[encode_png(frame) for frame in frames])
                progress.advance()


def _num_clips(config: PrepareConfig) -> dict[str, int]:
    return {"train": config.num_train_clips, "test": config.num_test_clips}


def scene_index(split: str, count: int) -> int:
    """Training scenes have even numbers and held-out ones odd ones: neither moves when there are more of the other."""
    return 2 * count + SPLITS.index(split)


def _generator(config: PrepareConfig, task: Task, scene: str) -> np.random.Generator:
    return generator_of(config.seed, task.name, scene)


def _report_gaps(counts: Counts) -> None:
    for task, numbers in sorted(counts.items()):
        if not numbers["test"]:
            logger.warning("%s: has no held-out pairs and cannot be measured", task)


def _metrics(config: PrepareConfig, counts: Counts) -> dict[str, object]:
    totals = {split: sum(numbers[split] for numbers in counts.values()) for split in SPLITS}
    clips = _num_clips(config)
    return {"pairs": totals, "tasks": counts} | ({"clips": clips} if any(clips.values()) else {})
