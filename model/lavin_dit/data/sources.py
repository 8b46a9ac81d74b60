"""Where the user's bytes lie: files under a root and members of tars, never anything outside of either."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lavin_dit.errors import InputError

IGNORED_NAMES = ("README.md",)
IGNORED_SUFFIXES = (".dvc",)
TAR_SUFFIX = ".tar"


@dataclass(frozen=True)
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
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """Raises: InputError naming the file where it cannot be read."""
        try:
            with self.path.open("rb") as stream:
                if not self.member:
                    return stream.read()
                stream.seek(self.offset)
                return stream.read(self.size)
        except OSError as error:
            raise InputError(f"{self.label}: cannot be read ({error.strerror})") from error


def is_ignored(name: str) -> bool:
    """Whether a file is none of the data: hidden, DVC's, or a README."""
    return name.startswith(".") or name in IGNORED_NAMES or name.endswith(IGNORED_SUFFIXES)


def entries_of(folder: Path, root: Path) -> list[Path]:
    """What a folder holds, sorted, without what is ignored.

    Raises: InputError naming a link that leads out of `root`, leads nowhere, or leads to a folder.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not is_ignored(entry.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
    for entry in entries:
        if entry.is_symlink():
            _check_link(entry, root)
    return entries


def walk(folder: Path, root: Path) -> Iterator[Source]:
    """All files below a folder, tars opened, in a fixed order."""
    for path in _walk_files(folder, root):
        if path.suffix.lower() == TAR_SUFFIX:
            yield from list_tar(path)
        else:
            yield Source(PurePosixPath(path.relative_to(folder).as_posix()), path)


def _walk_files(folder: Path, root: Path) -> Iterator[Path]:
    for entry in entries_of(folder, root):
        if entry.is_dir():
            yield from _walk_files(entry, root)
        elif entry.is_file():
            yield entry
        else:
            raise InputError(f"{entry}: is neither a file nor a folder")


def _check_link(link: Path, root: Path) -> None:
    try:
        place = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{link}: is a symbolic link that leads nowhere") from error
    if not place.is_relative_to(root.resolve()):
        raise InputError(f"{link}: is a symbolic link that leaves {root} (to {place}): copy the file instead")
    if place.is_dir():
        raise InputError(f"{link}: is a symbolic link to a folder: only links to files are followed")


def list_tar(path: Path) -> Iterator[Source]:
    """The members of an uncompressed tar, in its order, to be read in place.

    Raises: InputError naming the tar, and the member where one is not a plain file or would lie outside.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getmembers()
            _check_end(path, archive.offset)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an uncompressed tar, it is damaged or cut off ({error})") from error
    for member in members:
        _check_member(path, member)
        name = PurePosixPath(member.name)
        if not member.isdir() and not any(is_ignored(part) for part in name.parts):
            yield Source(name, path, member.name, member.offset_data, member.size)


def _check_end(path: Path, offset: int) -> None:
    """tarfile takes a damaged header for the end: only a block of zeros is one."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end mark is missing")


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    if member.name.startswith(("/", "\\")) or ".." in PurePosixPath(member.name).parts:
        raise InputError(f"{path}: its member {member.name!r} would lie outside of the archive: only plain relative names are read")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InputError(f"{path}: its member {member.name!r} is a link or a special file: only plain files are read")
