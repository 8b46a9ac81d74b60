"""What changed between two versions of the data, as people count it: pairs and photographs by task and split, not files.

Tars count as the pairs that they hold; only tars that differ are opened. Versions are read by name, whatever their files hold: a bad
file of the past is no reason to refuse to show it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from components.dataset_versions import Version
from lavin_dit.data.raw.holding_out import SPLIT_OF_FOLDER
from lavin_dit.data.raw.images import SUFFIXES
from lavin_dit.data.raw.matching import ROLE_ENDINGS, ROLES, natural_order, plain_name
from lavin_dit.data.raw.pairs import PHOTOS
from lavin_dit.data.raw.sources import TAR_SUFFIX, Source, list_tar
from lavin_dit.errors import InputError

Noun = Literal["pair", "photograph", "file"]
Group = tuple[str, str, Noun]
"""A task (or a folder of photographs), a split (empty where there is none), and what is counted."""
PartKey = tuple[str, str]
"""The side of a pair, and in a clip the frame."""
COPY_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a version, or a member of a tar there."""

    md5: str
    file: str
    member: Source | None = None

    def source(self, version: Version) -> Source:
        """Where its content lies, brought here first if need be.

        Raises: as `Version.place` does.
        """
        return self.member or Source(PurePosixPath(self.file), version.place.path(self.file))


@dataclass(frozen=True)
class Item:
    """A pair, a photograph, or another file."""

    name: str
    parts: Mapping[PartKey, Part]

    def has_same_content(self, other: "Item") -> bool:
        """Whether all parts are equal."""
        return {key: part.md5 for key, part in self.parts.items()} == {key: part.md5 for key, part in other.parts.items()}

    def side(self, role: str) -> list[Part]:
        """The frames of one side, in their order; a picture or a video is one."""
        return [self.parts[key] for key in sorted(self.parts, key=lambda key: natural_order(key[1])) if key[0] == role]


@dataclass(frozen=True)
class Changes:
    """What differs in one group; a changed item is there twice, as it was and as it is."""

    added: tuple[Item, ...]
    removed: tuple[Item, ...]
    changed: tuple[tuple[Item, Item], ...]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many were added, removed and changed."""
        return len(self.added), len(self.removed), len(self.changed)


def find_changes(old: Version, new: Version) -> dict[Group, Changes]:
    """Groups in which something differs, sorted.

    Raises: as `Version.place` does, for tars that differ.
    """
    before, after = (_items_of(version, _same_tars(old, new)) for version in (old, new))
    found = {group: _compare(before.get(group, {}), after.get(group, {})) for group in sorted(before.keys() | after.keys())}
    return {group: changes for group, changes in found.items() if any(changes.counts)}


def _compare(before: Mapping[str, Item], after: Mapping[str, Item]) -> Changes:
    added, removed, common = (
        sorted(names, key=natural_order)
        for names in (after.keys() - before.keys(), before.keys() - after.keys(), before.keys() & after.keys())
    )
    return Changes(
        added=tuple(after[name] for name in added),
        removed=tuple(before[name] for name in removed),
        changed=tuple((before[name], after[name]) for name in common if not before[name].has_same_content(after[name])),
    )


def _is_tar(name: str) -> bool:
    return name.lower().endswith(TAR_SUFFIX)


def _same_tars(old: Version, new: Version) -> frozenset[str]:
    return frozenset(name for name in old.files.keys() & new.files.keys() if _is_tar(name) and old.files[name] == new.files[name])


def _items_of(version: Version, left_out: frozenset[str]) -> dict[Group, dict[str, Item]]:
    groups: dict[Group, dict[str, dict[PartKey, Part]]] = {}
    for place, part in _parts_of(version, left_out):
        group, name, key = _named(place)
        groups.setdefault(group, {}).setdefault(name, {})[key] = part
    return {group: {name: Item(name, parts) for name, parts in items.items()} for group, items in groups.items()}


def _parts_of(version: Version, left_out: frozenset[str]) -> Iterator[tuple[PurePosixPath, Part]]:
    """Each with its path below the data's folder; a tar's members lie where the tar does."""
    names = [name for name in version.files if name not in left_out]
    version.place.fetch(name for name in names if _is_tar(name))
    for name in names:
        path = PurePosixPath(name)
        members = _members_of(version, name)
        for member in members:
            yield path.parent / member.name, Part(_md5_of(member), name, member)
        if not members:
            yield path, Part(version.files[name], name)


def _members_of(version: Version, name: str) -> list[Source]:
    """None where it is no tar, or one that cannot be read: it counts as a file then."""
    if not _is_tar(name):
        return []
    try:
        return list_tar(version.place.path(name))
    except InputError:
        return []


def _md5_of(member: Source) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with member.open() as stream:
        while chunk := stream.read(COPY_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _named(path: PurePosixPath) -> tuple[Group, str, PartKey]:
    task, *rest = path.parts
    if len(rest) > 1 and task != PHOTOS and rest[0] in SPLIT_OF_FOLDER:
        below = PurePosixPath(*rest[1:])
        name, role, frame = _name_role_and_frame(below)
        if role in ROLES and name:
            return (task, SPLIT_OF_FOLDER[rest[0]], "pair"), name, (role, frame)
        return (task, SPLIT_OF_FOLDER[rest[0]], "file"), str(below), ("", "")
    is_photo = bool(rest) and path.suffix.lower() in SUFFIXES
    return (task, "", "photograph" if is_photo else "file"), "/".join(rest) or task, ("", "")


def _name_role_and_frame(path: PurePosixPath) -> tuple[str, str, str]:
    is_frame = path.parent.name.endswith(ROLE_ENDINGS)
    side = plain_name(path.parent if is_frame else path.with_suffix(""))
    name, _, role = side.rpartition("_")
    return name, role, path.name if is_frame else ""
