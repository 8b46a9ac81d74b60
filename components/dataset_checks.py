"""What is to be added to the data: found by name, and checked as `prepare` would, but with every picture of it read."""

import itertools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from lavin_dit.config import PrepareConfig
from lavin_dit.data.raw.holding_out import SPLIT_OF_FOLDER
from lavin_dit.data.raw.matching import FrameFolder, Side
from lavin_dit.data.raw.pairs import PHOTOS, TASK_NAME, FilePair, find_raw, read_pair
from lavin_dit.data.raw.refusals import Refusals
from lavin_dit.data.raw.sides import check_lengths, check_sizes, open_frames, read_image
from lavin_dit.data.raw.sources import TAR_SUFFIX, entries_of, walk
from lavin_dit.errors import InputError
from lavin_dit.progress import Progress

READERS = 4
"""Pictures that are decoded at a time."""
CHECK_SIDE = 8
"""Pixels a side that a checked picture is made of: it is only to be read."""


def find_files(path: Path, task: str, split: str | None) -> dict[str, Path]:
    """The files of a folder (with a folder for each split in it, or not) or a tar, by the name that each will have below its task's folder.

    Raises: InputError naming the path or option that does not fit.
    """
    if not TASK_NAME.fullmatch(task):
        raise InputError(f"--task {task}: must be at most 40 lower-case letters, digits, - and _")
    if task == PHOTOS and split:
        raise InputError(f"--split {split}: photographs have no split: prepare.test_fraction of them is held out")
    if path.is_dir():
        files = dict.fromkeys(source.path for source in walk(path, path, Refusals()))
        names = {file.relative_to(path).as_posix(): file for file in files}
    elif path.is_file() and path.suffix.lower() == TAR_SUFFIX:
        names = {path.name: path}
    else:
        raise InputError(f"{path}: must be a folder with pairs or photographs, or an uncompressed tar of them, named *{TAR_SUFFIX}")
    if not names:
        raise InputError(f"{path}: holds nothing to add: neither <name>_input and <name>_target, nor photographs, nor tars of them")
    return names if task == PHOTOS or _has_splits(path, split) else {f"{split or 'train'}/{name}": file for name, file in names.items()}


def _has_splits(path: Path, split: str | None) -> bool:
    found = [entry.name for entry in entries_of(path, path) if entry.name in SPLIT_OF_FOLDER] if path.is_dir() else []
    if found and split:
        raise InputError(f"--split {split}: {path} holds folders of splits itself ({', '.join(found)})")
    return bool(found)


def check_data(raw: Path, config: PrepareConfig, is_new: Callable[[Path], bool]) -> int:
    """Checks a whole data folder by its names, and reads every picture of the files that are new; returns how many pairs and photographs.

    Raises: InputError naming the file that does not fit.
    """
    without = {source.folder for source in config.sources}
    found = find_raw(raw, seed=config.seed, test_fraction=config.test_fraction, without=without)
    pairs = [pair for pair in found.pairs if any(is_new(file) for side in (pair.input, pair.target) for file in _paths_of(side))]
    photos = [photo for photo in found.photos if is_new(photo.source.path)]
    checks: list[Callable[[], object]] = [partial(_check_pair, pair, config.max_megapixels) for pair in pairs]
    checks += [partial(read_image, photo.source, config.max_megapixels) for photo in photos]
    _run_all(checks)
    return len(checks)


def _paths_of(side: Side) -> Collection[Path]:
    return {frame.path for frame in side.frames} if isinstance(side, FrameFolder) else {side.path}


def _run_all(checks: Sequence[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(READERS) as pool, Progress("check pictures", len(checks)) as progress:
        pending = [pool.submit(check) for check in checks]
        try:
            for done in as_completed(pending):
                done.result()
                progress.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_pair(pair: FilePair, max_megapixels: float) -> None:
    if pair.medium == "image":
        read_pair(pair, resolution=CHECK_SIDE, max_megapixels=max_megapixels)
        return
    with open_frames(pair.input, max_megapixels) as inputs, open_frames(pair.target, max_megapixels) as targets:
        check_lengths(inputs, targets)
        sizes: set[tuple[int, int]] = set()
        for first, second in itertools.zip_longest(inputs.images, targets.images):
            if first is None or second is None:
                raise InputError(f"{targets.label}: has another number of frames than its input: both must have the same")
            check_sizes(first.size, second.size, targets.label)
            sizes.add(first.size)
        if len(sizes) > 1:
            raise InputError(f"{inputs.label}: has frames of {len(sizes)} sizes: all must have one")
