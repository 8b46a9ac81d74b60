"""Files whose names say which pair they belong to, brought together.

<name>_input.<ext>, <name>_target.<ext>      pictures, or videos
<name>_input/<frame>.<ext>, <name>_target/…  clips as folders of frames, in the natural order of their names
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from lavin_dit.data.raw.images import SUFFIXES
from lavin_dit.data.raw.refusals import Refusals, readable
from lavin_dit.data.raw.sources import Source
from lavin_dit.data.raw.videos import VIDEO_SUFFIXES
from lavin_dit.data.tasks import Medium
from lavin_dit.errors import InputError

ROLES = ("input", "target")
ROLE_ENDINGS = tuple(f"_{role}" for role in ROLES)
MEDIUM_NOUNS: dict[Medium, str] = {"image": "picture", "clip": "clip"}


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """A clip that lies in a folder (of files, or of a tar), a picture a frame."""

    label: str
    frames: tuple[Source, ...]


Side = Source | FrameFolder
"""What lies on one side of a pair: a picture, a video, or a folder of frames."""


@dataclass(frozen=True, slots=True)
class Match:
    """The two sides that share a name."""

    name: str
    medium: Medium
    input: Side
    target: Side


def plain_name(path: PurePosixPath) -> str:
    """A name as people read it: letters with accents are equal, whichever way a file system composes them."""
    return unicodedata.normalize("NFC", path.as_posix())


def is_role_named(path: PurePosixPath) -> bool:
    """Whether a file says that it is one side of a pair, or a frame of one."""
    return path.stem.endswith(ROLE_ENDINGS) or any(part.endswith(ROLE_ENDINGS) for part in path.parts[:-1])


def match_pairs(found: Iterable[Source], refusals: Refusals) -> list[Match]:
    """Brings inputs and targets together, sorted by name.

    Raises: InputError naming the file that is no side of a pair, repeats a name, or has no partner, unless `refusals` leaves it out.
    """
    by_name: dict[str, dict[str, Side]] = {}
    for side_name, side in _sides(found, refusals):
        with refusals.about(side.label):
            name, role = _name_and_role(side_name, side)
            known = by_name.setdefault(name, {})
            if role in known:
                raise InputError(f"{side.label}: repeats the name {readable(name)}_{role} of {known[role].label}")
            known[role] = side
    matches = []
    for name, known in sorted(by_name.items()):
        with refusals.about(next(iter(known.values())).label):
            matches.append(_match(name, known, refusals))
    return matches


def medium_of(side: Side) -> Medium:
    """What one side of a pair holds."""
    return "clip" if isinstance(side, FrameFolder) or side.name.suffix.lower() in VIDEO_SUFFIXES else "image"


def stem_of_image(source: Source) -> str:
    """The name of a picture without its extension.

    Raises: InputError naming the file that is none.
    """
    if source.name.suffix.lower() not in SUFFIXES:
        raise InputError(f"{source.label}: is not an image that can be read here ({', '.join(SUFFIXES)})")
    return plain_name(source.name.with_suffix(""))


def _match(name: str, known: dict[str, Side], refusals: Refusals) -> Match:
    for role, partner in (ROLES, ROLES[::-1]):
        if role not in known:
            ending = "" if isinstance(known[partner], FrameFolder) else ".<ext>"
            raise InputError(f"{known[partner].label}: has no {role}: {readable(name)}_{role}{ending} is missing")
    medium, other = medium_of(known["input"]), medium_of(known["target"])
    if medium != other:
        raise InputError(f"{known['target'].label}: is a {MEDIUM_NOUNS[other]}, but its input is a {MEDIUM_NOUNS[medium]}")
    return Match(name, medium, *(_ordered(known[role], refusals) for role in ROLES))


def _sides(found: Iterable[Source], refusals: Refusals) -> list[tuple[str, Side]]:
    """Files by themselves as they come, then folders of frames in any order."""
    sides: list[tuple[str, Side]] = []
    folders: dict[PurePosixPath, list[Source]] = {}
    for source in found:
        folder = source.name.parent
        if folder.name.endswith(ROLE_ENDINGS):
            folders.setdefault(folder, []).append(source)
            continue
        with refusals.about(source.label):
            sides.append((_stem_of_file(source), source))
    for folder, frames in folders.items():
        label = str(PurePosixPath(frames[0].label).parent)
        sides.append((plain_name(folder), FrameFolder(label, tuple(frames))))
    return sides


def _stem_of_file(source: Source) -> str:
    if any(part.endswith(ROLE_ENDINGS) for part in source.name.parts[:-1]):
        raise InputError(f"{source.label}: lies too deep: a clip's folder holds its frames and nothing else")
    if source.name.suffix.lower() not in SUFFIXES + VIDEO_SUFFIXES:
        raise InputError(f"{source.label}: is not an image or a video that can be read here ({', '.join(SUFFIXES + VIDEO_SUFFIXES)})")
    return plain_name(source.name.with_suffix(""))


def _name_and_role(side_name: str, side: Side) -> tuple[str, str]:
    name, _, role = side_name.rpartition("_")
    if not name or name.endswith("/") or role not in ROLES:
        raise InputError(f"{side.label}: must be named <name>_input or <name>_target before its extension")
    return name, role


def _ordered(side: Side, refusals: Refusals) -> Side:
    """A clip's frames in the order of their names; what is no folder stays as it is."""
    if not isinstance(side, FrameFolder):
        return side
    by_stem: dict[str, Source] = {}
    for source in side.frames:
        with refusals.about(source.label):
            stem = PurePosixPath(stem_of_image(source)).name
            if stem in by_stem:
                raise InputError(f"{source.label}: repeats the frame {readable(stem)} of {by_stem[stem].label}")
            by_stem[stem] = source
    stems = sorted(by_stem, key=natural_order)
    if not stems:
        raise InputError(f"{side.label}: holds no frames ({', '.join(SUFFIXES)})")
    _check_numbers(side.label, stems)
    return FrameFolder(side.label, tuple(by_stem[stem] for stem in stems))


def natural_order(name: str) -> tuple[tuple[tuple[str, int, str], ...], str]:
    """A key by which frame 2 comes before frame 10: text and numbers in turn, numbers by their size."""
    pieces = re.findall(r"([^0-9]*)0*([0-9]*)", name)
    return tuple((text, len(digits), digits) for text, digits in pieces), name


def _check_numbers(label: str, stems: list[str]) -> None:
    """Frames that differ in their last number alone must have every number from the first to the last."""
    parts = [match for stem in stems if (match := re.fullmatch(r"(.*?)([0-9]{1,18})", stem, re.DOTALL))]
    if len(parts) < len(stems) or len({part[1] for part in parts}) > 1:
        return
    for before, after in itertools.pairwise(parts):
        missing = int(before[2]) + 1
        if int(after[2]) == int(before[2]):
            raise InputError(f"{label}: holds the frames {readable(before[0])} and {readable(after[0])}, which are one number")
        if int(after[2]) != missing:
            name = f"{readable(before[1])}{missing:0{len(before[2])}d}"
            raise InputError(f"{label}: lacks the frame {name} between {readable(before[0])} and {readable(after[0])}")
