"""Where the user's bytes lie: files under a root and members of tars, never anything outside of either."""

import io
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lavin_dit.data.raw.refusals import Refusals, readable
from lavin_dit.data.raw.windows import open_window
from lavin_dit.errors import InputError

IGNORED_NAMES = ("README.md", "Thumbs.db", "desktop.ini")
IGNORED_SUFFIXES = (".dvc",)
TAR_SUFFIX = ".tar"
TAR_DAMAGE = (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, MemoryError, RecursionError)
"""What tarfile raises on archives that lie; a header's size is believed before it is read, hence the last three."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one member of a tar (`offset` and `size` are set).

    `name` is its path below the folder or tar that it was found in; `label` is what the user would call it.
    """

    name: PurePosixPath
    path: Path
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def label(self) -> str:
        return readable(f"{self.path}: {self.member}" if self.member else self.path)

    def open(self) -> BinaryIO:
        """Raises: InputError naming the file where it cannot be opened."""
        try:
            return open_window(self.path, self.offset, self.size) if self.member else self.path.open("rb")
        except OSError as error:
            raise InputError(f"{self.label}: cannot be read ({error.strerror})") from error

    def read(self, *, max_bytes: float | None = None) -> bytes:
        """Raises: InputError naming the file where it cannot be read, or is larger than `max_bytes`."""
        with self.open() as stream:
            try:
                num_bytes = stream.seek(0, io.SEEK_END)
                if max_bytes is not None and num_bytes > max_bytes:
                    raise InputError(f"{self.label}: is {num_bytes / 2**20:.0f} MiB large: at most {max_bytes / 2**20:.0f} MiB are read")
                stream.seek(0)
                return stream.read()
            except OSError as error:
                raise InputError(f"{self.label}: cannot be read ({error.strerror})") from error


def is_ignored(name: str) -> bool:
    """Whether a file is none of the data: hidden, DVC's, a README, or what Windows leaves in folders."""
    return name.startswith(".") or name in IGNORED_NAMES or name.endswith(IGNORED_SUFFIXES)


def entries_of(folder: Path, root: Path, refusals: Refusals | None = None, *, without: Collection[str] = ()) -> list[Path]:
    """What a folder holds, sorted, without what is ignored and without some names.

    Raises: InputError naming a link that leads out of `root`, leads nowhere, or leads to a folder, unless `refusals` leaves it out.
    """
    return [folder / entry.name for entry in _scan(folder, root, refusals or Refusals(), without)]


def walk(folder: Path, root: Path, refusals: Refusals) -> Iterator[Source]:
    """All files below a folder, tars opened, in a fixed order: those of a folder before those of its sub-folders."""
    pending = [PurePosixPath()]
    while pending:
        below = pending.pop()
        folders = []
        with refusals.about(folder / below):
            for entry in _scan(folder / below, root, refusals):
                if entry.is_dir():
                    folders.append(below / entry.name)
                else:
                    yield from _sources_at(entry, below, refusals)
        pending.extend(reversed(folders))


def _scan(folder: Path, root: Path, refusals: Refusals, without: Collection[str] = ()) -> list[os.DirEntry[str]]:
    """Unlike pathlib's listing, this one asks the file system about links alone, which shows with many files."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry for entry in listing if not is_ignored(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{readable(folder)}: cannot be listed ({error.strerror})") from error
    return [entry for entry in entries if entry.name not in without and _is_sound(entry, root, refusals)]


def _is_sound(entry: os.DirEntry[str], root: Path, refusals: Refusals) -> bool:
    if entry.name.isascii() and not entry.is_symlink():
        return True
    with refusals.about(entry.path):
        _check_text(entry.path, entry.name)
        if entry.is_symlink():
            _check_link(Path(entry.path), root)
        return True
    return False


def _sources_at(entry: os.DirEntry[str], below: PurePosixPath, refusals: Refusals) -> Iterable[Source]:
    path = Path(entry.path)
    with refusals.about(path):
        if not entry.is_file():
            raise InputError(f"{readable(path)}: is neither a file nor a folder")
        return list_tar(path, refusals) if path.suffix.lower() == TAR_SUFFIX else [Source(below / entry.name, path)]
    return []


def _check_text(label: str, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{readable(label)}: has a name that is not valid UTF-8: rename it") from error


def _check_link(link: Path, root: Path) -> None:
    try:
        place = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{readable(link)}: is a symbolic link that leads nowhere") from error
    if not place.is_relative_to(root.resolve()):
        raise InputError(f"{readable(link)}: is a symbolic link that leaves {root} (to {readable(place)}): copy the file instead")
    if place.is_dir():
        raise InputError(f"{readable(link)}: is a symbolic link to a folder: only links to files are followed")


def list_tar(path: Path, refusals: Refusals | None = None) -> list[Source]:
    """The members of an uncompressed tar, in its order, to be read in place.

    Raises: InputError naming the tar that is damaged, and the member that is not a plain file or would lie outside, unless `refusals`
    leaves that out.
    """
    refusals = refusals or Refusals()
    sources: list[Source] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in _members(archive):
                with refusals.about(f"{path}: {member.name}"):
                    sources.extend(_source_in(path, member))
            _check_end(path, archive.offset)
    except InputError:
        raise
    except TAR_DAMAGE as error:
        raise InputError(f"{readable(path)}: cannot be read as an uncompressed tar, it is damaged or cut off ({error})") from error
    return sources


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One at a time: the archive would keep each. A header of negative size would lead it round in circles."""
    end = -1
    while member := archive.next():
        if archive.offset <= end:
            raise tarfile.ReadError("its headers overlap")
        end = archive.offset
        archive.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it
        yield member


def _check_end(path: Path, offset: int) -> None:
    """A tar that was cut between two members lists like a whole one, but lacks the end mark."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end mark is missing")


def _source_in(path: Path, member: tarfile.TarInfo) -> Iterable[Source]:
    _check_text(f"{path}: {member.name}", member.name)
    name = PurePosixPath(member.name)
    if member.name.startswith(("/", "\\")) or ".." in name.parts:
        raise InputError(
            f"{readable(path)}: its member {member.name!r} would lie outside of the archive: only plain relative names are read"
        )
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InputError(f"{readable(path)}: its member {member.name!r} is a link or a special file: only plain files are read")
    if not member.isdir() and not any(is_ignored(part) for part in name.parts):
        yield Source(name, path, member.name, member.offset_data, member.size)
