"""What the user has put under data/raw: pairs of pictures and photographs, found and checked by name, then read one at a time.

<task>/<split>/<name>_input.<ext>, <name>_target.<ext>     split: train, test or val (held out too)
<task>/<split>/<any>.tar                                   the same files, read without extraction
<any folder of plain pictures>/**/<name>.<ext>             photographs for restoration tasks; `photos` always is one
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lavin_dit.data.encodings import Picture
from lavin_dit.data.images import SUFFIXES, decode_image, square_picture
from lavin_dit.data.sources import Source, entries_of, walk
from lavin_dit.data.tasks import NEAREST_KINDS, ImagePair, task_of
from lavin_dit.errors import InputError

PHOTOS = "photos"
SPLIT_OF_FOLDER = {"train": "train", "test": "test", "val": "test"}
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
ROLES = ("input", "target")
ROLE_ENDINGS = tuple(f"_{role}" for role in ROLES)
SLUG_LENGTH = 24


@dataclass(frozen=True)
class FilePair:
    """The two files of one pair; `scene` is the same for one name in all tasks, so that its tasks are held out together."""

    task: str
    split: str
    scene: str
    input: Source
    target: Source


@dataclass(frozen=True)
class Photo:
    """A photograph of the user's."""

    split: str
    scene: str
    source: Source


@dataclass(frozen=True)
class RawData:
    """All that data/raw holds, in a fixed order."""

    pairs: tuple[FilePair, ...]
    photos: tuple[Photo, ...]


@dataclass(frozen=True)
class _Named:
    task: str
    split: str
    is_split_given: bool
    name: str
    sources: dict[str, Source]


def find_raw(root: Path, *, seed: int, test_fraction: float) -> RawData:
    """Finds and pairs the user's files; reads names and tar headers, no pictures. An absent `root` holds nothing.

    What has no held-out folder of its own is split by a hash of its name (not of its task).
    Raises: InputError naming the file or folder that does not follow the layout, lacks its partner, or repeats a name.
    """
    if not root.exists():
        return RawData((), ())
    if not root.is_dir():
        raise InputError(f"{root}: must be a folder with a sub-folder for each task")
    entries = entries_of(root, root)
    photo_folders = [entry for entry in entries if _holds_photos(entry, root)]
    named = [pair for entry in entries if entry not in photo_folders for pair in _pairs_in(entry, root)]
    held_out = _hold_out([pair.name for pair in named if not pair.is_split_given], seed, test_fraction)
    pairs = (_file_pair(pair, held_out) for pair in named)
    photos = [photo for folder in photo_folders for photo in _photos_in(folder, root, seed, test_fraction)]
    return RawData(tuple(pairs), tuple(photos))


def read_pair(pair: FilePair, *, resolution: int, max_megapixels: float) -> ImagePair:
    """Decodes a pair, crops its centre and resizes it; labels, masks and edges without mixing their colours.

    Raises: InputError naming the file that cannot be read, or whose size differs from its input's.
    """
    inputs = decode_image(pair.input.read(), label=pair.input.label, max_megapixels=max_megapixels)
    target = decode_image(pair.target.read(), label=pair.target.label, max_megapixels=max_megapixels)
    if inputs.size != target.size:
        sizes = f"{target.width}x{target.height}, but its input is {inputs.width}x{inputs.height}"
        raise InputError(f"{pair.target.label}: is {sizes}: both must have one size")
    is_nearest = task_of(pair.task).kind in NEAREST_KINDS
    return ImagePair(
        square_picture(inputs, resolution, is_nearest=False),
        square_picture(target, resolution, is_nearest=is_nearest),
    )


def read_photo(photo: Photo, *, resolution: int, max_megapixels: float) -> Picture:
    """Decodes a photograph, crops its centre and resizes it. Shapes: (h, w, 3) uint8.

    Raises: InputError naming the file that cannot be read.
    """
    image = decode_image(photo.source.read(), label=photo.source.label, max_megapixels=max_megapixels)
    return square_picture(image, resolution, is_nearest=False)


def _holds_photos(entry: Path, root: Path) -> bool:
    """Whether a folder is one of plain pictures: neither split into train and test, nor named as inputs and targets."""
    if not entry.is_dir() or entry.name == PHOTOS:
        return entry.is_dir()
    if any(path.name in SPLIT_OF_FOLDER for path in entries_of(entry, root)):
        return False
    stems = [source.name.stem for source in walk(entry, root)]
    return bool(stems) and not any(stem.endswith(ROLE_ENDINGS) for stem in stems)


def _check_task_folder(entry: Path) -> None:
    if not entry.is_dir():
        raise InputError(f"{entry}: lies outside of a task's folder: put it into {entry.parent}/<task>/train or {entry.parent}/{PHOTOS}")
    if not TASK_NAME.fullmatch(entry.name):
        raise InputError(f"{entry}: a task's folder is named with at most 40 lower-case letters, digits, - and _")


def _pairs_in(folder: Path, root: Path) -> list[_Named]:
    _check_task_folder(folder)
    splits = entries_of(folder, root)
    for entry in splits:
        if entry.name not in SPLIT_OF_FOLDER or not entry.is_dir():
            raise InputError(f"{entry}: does not belong in a task's folder: only the folders {', '.join(SPLIT_OF_FOLDER)} do")
    by_split: dict[str, list[Source]] = {}
    for entry in splits:
        by_split.setdefault(SPLIT_OF_FOLDER[entry.name], []).extend(walk(entry, root))
    if not any(by_split.values()):
        raise InputError(f"{folder}: holds no pairs: put <name>_input and <name>_target images into {folder / 'train'}")
    return [
        _Named(folder.name, split, "test" in by_split, name, sources)
        for split, found in sorted(by_split.items())
        for name, sources in _match(found).items()
    ]


def _match(found: Iterable[Source]) -> dict[str, dict[str, Source]]:
    by_name: dict[str, dict[str, Source]] = {}
    for source in found:
        name, role = _name_and_role(source)
        known = by_name.setdefault(name, {})
        if role in known:
            raise InputError(f"{source.label}: repeats the name {name}_{role} of {known[role].label}")
        known[role] = source
    for name, known in by_name.items():
        for role, other in (ROLES, ROLES[::-1]):
            if role not in known:
                raise InputError(f"{known[other].label}: has no {role}: {name}_{role}.<ext> is missing")
    return dict(sorted(by_name.items()))


def _name_and_role(source: Source) -> tuple[str, str]:
    name, _, role = _stem_of_image(source).rpartition("_")
    if not PurePosixPath(name).name or role not in ROLES:
        raise InputError(f"{source.label}: must be named <name>_input or <name>_target before its extension")
    return name, role


def _stem_of_image(source: Source) -> str:
    if source.name.suffix.lower() not in SUFFIXES:
        raise InputError(f"{source.label}: is not an image that can be read here ({', '.join(SUFFIXES)})")
    return source.name.with_suffix("").as_posix()


def _file_pair(pair: _Named, held_out: frozenset[str]) -> FilePair:
    split = pair.split if pair.is_split_given or pair.name not in held_out else "test"
    return FilePair(pair.task, split, _scene_of("pair", pair.name), pair.sources["input"], pair.sources["target"])


def _photos_in(folder: Path, root: Path, seed: int, test_fraction: float) -> list[Photo]:
    by_name: dict[str, Source] = {}
    for source in walk(folder, root):
        stem = _stem_of_image(source)
        name = stem if folder.name == PHOTOS else f"{folder.name}/{stem}"
        if name in by_name:
            raise InputError(f"{source.label}: repeats the name {name} of {by_name[name].label}")
        by_name[name] = source
    if not by_name:
        raise InputError(f"{folder}: holds no images")
    held_out = _hold_out(by_name, seed, test_fraction)
    return [Photo("test" if name in held_out else "train", _scene_of("photo", name), by_name[name]) for name in sorted(by_name)]


def _hold_out(names: Iterable[str], seed: int, test_fraction: float) -> frozenset[str]:
    """Names whose hash falls below the fraction; of several names always at least one, and never all."""
    ranks = {name: int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64 for name in names}
    if test_fraction == 0 or len(ranks) < 2:
        return frozenset()
    below = {name for name, rank in ranks.items() if rank < test_fraction} or {min(ranks, key=ranks.__getitem__)}
    return frozenset(below - {max(ranks, key=ranks.__getitem__)})


def _scene_of(origin: str, name: str) -> str:
    """A short identifier without dots or slashes (tar readers split names at them), unique by a hash of the whole name."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[-SLUG_LENGTH:]
    return f"{origin}-{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
