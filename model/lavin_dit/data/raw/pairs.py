"""What the user has put under data/raw: pairs of pictures or clips, and photographs, found and checked by name, then read one at a time.

<task>/<split>/<name>_input.<ext>, <name>_target.<ext>      split: train, test or val (held out too); pictures, or videos
<task>/<split>/<name>_input/<frame>.<ext>, <name>_target/…  clips as folders of frames
<task>/<split>/<any>.tar                                    the same files, read without extraction
<any folder of plain pictures>/**/<name>.<ext>              photographs for restoration tasks; `photos` always is one
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lavin_dit.data.pixels import Picture
from lavin_dit.data.raw.holding_out import SPLIT_OF_FOLDER, hold_out, scene_of
from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.raw.matching import MEDIUM_NOUNS, Match, Side, is_role_named, match_pairs, plain_name, stem_of_image
from lavin_dit.data.raw.refusals import OnBad, Refusals, Skipped, readable
from lavin_dit.data.raw.sides import check_lengths, check_sizes, open_frames, read_image, square_frames
from lavin_dit.data.raw.sources import Source, entries_of, walk
from lavin_dit.data.tasks import NEAREST_KINDS, TASKS, ClipPair, ImagePair, Medium, task_of
from lavin_dit.errors import InputError

PHOTOS = "photos"
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class FilePair:
    """The two sides of one pair; `scene` is the same for one name in all tasks, so that its tasks are held out together."""

    task: str
    split: str
    scene: str
    input: Side
    target: Side
    medium: Medium


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph of the user's."""

    split: str
    scene: str
    source: Source


@dataclass(frozen=True)
class RawData:
    """All that data/raw holds, in a fixed order, and what was left out of it."""

    pairs: tuple[FilePair, ...]
    photos: tuple[Photo, ...]
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A match, and the split that its folder says, which holds where the task has a test folder."""

    task: str
    split: str
    is_split_given: bool
    match: Match


def find_raw(root: Path, *, seed: int, test_fraction: float, on_bad: OnBad = "stop", without: Collection[str] = frozenset()) -> RawData:
    """Finds and pairs the user's files; reads names and tar headers, no pictures. An absent `root` holds nothing.

    What has no held-out folder of its own is split by a hash of its name (not of its task). `without` names folders below `root` that
    are read otherwise (published data sets): the sub-folder of `root` that holds one is left out as a whole.
    Raises: InputError naming the file or folder that does not follow the layout, lacks its partner, or repeats a name, unless `on_bad`
    says to leave it out.
    """
    if not root.exists():
        return RawData((), ())
    if not root.is_dir():
        raise InputError(f"{root}: must be a folder with a sub-folder for each task")
    refusals = Refusals(on_bad)
    found: list[_Found] = []
    photos: list[Photo] = []
    for entry in entries_of(root, root, refusals, without={part for name in without for part in PurePosixPath(name).parts[:1]}):
        with refusals.about(entry):
            entries = _entries_of_task(entry, root, refusals)
            loose = [] if _has_splits(entry, entries) else list(walk(entry, root, refusals))
            if _are_photos(entry, loose):
                photos += _photos_in(entry, loose, refusals, seed=seed, test_fraction=test_fraction)
            else:
                found += _pairs_in(entry, entries, root, refusals)
    held_out = hold_out([pair.match.name for pair in found if not pair.is_split_given], seed, test_fraction)
    return RawData(tuple(_file_pair(pair, held_out) for pair in found), tuple(photos), refusals.skipped)


def read_pair(pair: FilePair, *, resolution: int, max_megapixels: float) -> ImagePair:
    """Decodes a pair of pictures, crops its centre and resizes it; labels, masks and edges without mixing their colours.

    Raises: InputError naming the file that cannot be read, or whose size differs from its input's.
    """
    assert isinstance(pair.input, Source), f"{pair.scene} is a pair of clips"
    assert isinstance(pair.target, Source), f"{pair.scene} is a pair of clips"
    inputs, target = read_image(pair.input, max_megapixels), read_image(pair.target, max_megapixels)
    check_sizes(inputs.size, target.size, pair.target.label)
    input_is_nearest, target_is_nearest = _are_nearest(pair.task)
    return ImagePair(
        square_picture(inputs, resolution, is_nearest=input_is_nearest),
        square_picture(target, resolution, is_nearest=target_is_nearest),
    )


def read_clip_pair(pair: FilePair, *, resolution: int, max_megapixels: float, num_frames: int) -> ClipPair:
    """Decodes the first frames of a pair of clips, each as `read_pair` does a picture. What comes after them is not looked at.

    Raises: InputError naming the file that cannot be read, has too few frames, or has another size or length than its input (the length
    of a video is compared where its container declares it).
    """
    input_is_nearest, target_is_nearest = _are_nearest(pair.task)
    with open_frames(pair.input, max_megapixels) as inputs, open_frames(pair.target, max_megapixels) as targets:
        check_lengths(inputs, targets)
        first, size = square_frames(inputs, num_frames, resolution, is_nearest=input_is_nearest)
        second, target_size = square_frames(targets, num_frames, resolution, is_nearest=target_is_nearest)
        check_sizes(size, target_size, pair.target.label)
    return ClipPair(first, second)


def read_photo(photo: Photo, *, resolution: int, max_megapixels: float) -> Picture:
    """Decodes a photograph, crops its centre and resizes it. Shapes: (h, w, 3) uint8.

    Raises: InputError naming the file that cannot be read.
    """
    return square_picture(read_image(photo.source, max_megapixels), resolution, is_nearest=False)


def _are_nearest(task: str) -> tuple[bool, bool]:
    """Whether the colours of a task's inputs and targets must not be mixed."""
    return task_of(task).input_kind in NEAREST_KINDS, task_of(task).kind in NEAREST_KINDS


def _entries_of_task(folder: Path, root: Path, refusals: Refusals) -> list[Path]:
    if not folder.is_dir():
        places = f"{folder.parent}/<task>/train or {folder.parent}/{PHOTOS}"
        raise InputError(f"{readable(folder)}: lies outside of a task's folder: put it into {places}")
    return entries_of(folder, root, refusals)


def _has_splits(folder: Path, entries: Iterable[Path]) -> bool:
    return folder.name != PHOTOS and any(entry.name in SPLIT_OF_FOLDER for entry in entries)


def _are_photos(folder: Path, sources: Collection[Source]) -> bool:
    """Whether a folder is one of plain pictures: neither split into train and test, nor named as inputs and targets."""
    return folder.name == PHOTOS or (bool(sources) and not any(is_role_named(source.name) for source in sources))


def _pairs_in(folder: Path, entries: Iterable[Path], root: Path, refusals: Refusals) -> list[_Found]:
    if not TASK_NAME.fullmatch(folder.name):
        raise InputError(f"{readable(folder)}: a task's folder is named with at most 40 lower-case letters, digits, - and _")
    by_split: dict[str, list[Source]] = {}
    for entry in entries:
        with refusals.about(entry):
            if entry.name not in SPLIT_OF_FOLDER or not entry.is_dir():
                allowed = ", ".join(SPLIT_OF_FOLDER)
                raise InputError(f"{readable(entry)}: lies beside a task's splits: only the folders {allowed} do, put it into one of them")
            by_split.setdefault(SPLIT_OF_FOLDER[entry.name], []).extend(walk(entry, root, refusals))
    if not any(by_split.values()):
        raise InputError(f"{folder}: holds no pairs: put <name>_input and <name>_target files into {folder / 'train'}")
    found = [
        _Found(folder.name, split, "test" in by_split, match)
        for split, sources in sorted(by_split.items())
        for match in match_pairs(sources, refusals)
    ]
    return _of_one_medium(folder, found, refusals)


def _of_one_medium(folder: Path, found: list[_Found], refusals: Refusals) -> list[_Found]:
    """What fits the task: a known one has pictures or clips, one of the user's own has what its files are."""
    if folder.name not in TASKS:
        if len({pair.match.medium for pair in found}) > 1:
            raise InputError(f"{folder}: holds pairs of pictures and pairs of clips: a task has one of both, make two folders of it")
        return found
    fitting = []
    for pair in found:
        with refusals.about(pair.match.input.label):
            _check_medium(pair)
            fitting.append(pair)
    return fitting


def _check_medium(pair: _Found) -> None:
    medium, right = MEDIUM_NOUNS[pair.match.medium], MEDIUM_NOUNS[TASKS[pair.task].medium]
    if medium != right:
        raise InputError(f"{pair.match.input.label}: is a {medium}, but {pair.task} is a task of {right}s")


def _file_pair(pair: _Found, held_out: Collection[str]) -> FilePair:
    match = pair.match
    split = pair.split if pair.is_split_given or match.name not in held_out else "test"
    return FilePair(pair.task, split, scene_of("pair", match.name), match.input, match.target, match.medium)


def _photos_in(folder: Path, sources: Sequence[Source], refusals: Refusals, *, seed: int, test_fraction: float) -> list[Photo]:
    by_name: dict[str, Source] = {}
    for source in sources:
        with refusals.about(source.label):
            stem = _stem_of_photo(folder, source)
            name = stem if folder.name == PHOTOS else f"{plain_name(PurePosixPath(folder.name))}/{stem}"
            if name in by_name:
                raise InputError(f"{source.label}: repeats the name {readable(name)} of {by_name[name].label}")
            by_name[name] = source
    if not by_name:
        raise InputError(f"{readable(folder)}: holds no images")
    held_out = hold_out(by_name, seed, test_fraction)
    return [Photo("test" if name in held_out else "train", scene_of("photo", name), by_name[name]) for name in sorted(by_name)]


def _stem_of_photo(folder: Path, source: Source) -> str:
    try:
        return stem_of_image(source)
    except InputError as error:
        if folder.name == PHOTOS:
            raise
        raise InputError(f"{error}; a published data set is read once prepare.sources names its folder") from error
