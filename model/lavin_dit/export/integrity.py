"""SHA256SUMS of a folder: written once, checked before anything in the folder is believed. Needs the standard library only."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256

CHECKSUMS_NAME = "SHA256SUMS"
LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>[^\\\r\n]+)")


def write_checksums(folder: Path) -> None:
    """Writes `SHA256SUMS` over every other file of the folder, in the form that `sha256sum --check` reads.

    Raises: InputError naming a link, a special file, or a name that the form cannot hold.
    """
    names = sorted(name for name in _file_names(folder) if name != CHECKSUMS_NAME)
    lines = [f"{file_sha256(folder / name)}  {name}" for name in names]
    for name, line in zip(names, lines, strict=True):
        if not LINE.fullmatch(line):
            raise InputError(f"{folder}: the name of file {name!r} holds a line break or a backslash, which {CHECKSUMS_NAME} cannot hold")
    (folder / CHECKSUMS_NAME).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Checks that the folder holds exactly the files that its `SHA256SUMS` lists, each with its hash.

    Raises: InputError naming the first file that is missing, extra, changed, a link, or leaves the folder.
    """
    recorded = read_checksums(folder)
    present = set(_file_names(folder)) - {CHECKSUMS_NAME}
    for name in sorted(recorded.keys() | present):
        if name not in present:
            raise InputError(f"{folder / name}: is missing, though {CHECKSUMS_NAME} lists it")
        if name not in recorded:
            raise InputError(f"{folder / name}: is not listed in {CHECKSUMS_NAME}")
        if file_sha256(folder / name) != recorded[name]:
            raise InputError(f"{folder / name}: has changed, its sha256 is not the one in {CHECKSUMS_NAME}")


def read_checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each file by its name relative to the folder, as `SHA256SUMS` records them; nothing is verified.

    Raises: InputError where the file is absent, malformed, empty, repeats a name, or names a file outside the folder.
    """
    path = folder / CHECKSUMS_NAME
    recorded: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        match = LINE.fullmatch(line)
        if not match:
            raise InputError(f"{path}: line {number} must be a sha256, two spaces and a file name")
        name = match["name"]
        if not _stays_inside(name):
            raise InputError(f"{path}: line {number} names {name}, which leaves the folder")
        if name in recorded:
            raise InputError(f"{path}: line {number} lists {name} a second time")
        recorded[name] = match["digest"]
    if not recorded:
        raise InputError(f"{path}: lists no file")
    return recorded


def checksums_digest(folder: Path) -> str:
    """The sha256 of `SHA256SUMS` itself: one name for the content of the whole folder.

    Raises: InputError where the folder has no `SHA256SUMS`.
    """
    path = folder / CHECKSUMS_NAME
    _read_text(path)
    return file_sha256(path)


def _read_text(path: Path) -> str:
    if path.is_symlink():
        raise InputError(f"{path}: is a link; {CHECKSUMS_NAME} must be a file of the folder itself")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of sha256 sums ({error})") from error


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


def _file_names(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder")
    for parent, folder_names, file_names in os.walk(folder):
        for name in sorted(folder_names + file_names):
            path = Path(parent, name)
            if path.is_symlink():
                raise InputError(f"{path}: is a link; only files that lie in the folder itself can be checked")
            if name in file_names:
                if not path.is_file():
                    raise InputError(f"{path}: is neither a file nor a folder")
                yield path.relative_to(folder).as_posix()
