"""Files of a data set: found where its publishers put them, and never read from outside of its folder."""

import importlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import ModuleType

from lavin_dit.data.raw.images import SUFFIXES
from lavin_dit.data.raw.sources import is_ignored
from lavin_dit.errors import InputError

MAX_LIST_MIB = 64


def top_of(folder: Path, *inside: str) -> Path:
    """The folder that an archive's own top folders make, or `folder` where it is that one already."""
    for name in inside:
        if (folder / name).is_dir():
            return folder / name
    return folder


def need_folder(path: Path, layout: str) -> Path:
    """Raises: InputError saying what the layout must be where a folder is missing."""
    if not path.is_dir():
        raise InputError(f"{path}: is missing: {layout}")
    return path


def need_file(path: Path, layout: str) -> Path:
    """Raises: InputError saying what the layout must be where a file is missing."""
    if not path.is_file():
        raise InputError(f"{path}: is missing: {layout}")
    return path


def content_of(folder: Path, name: str) -> bytes:
    """The bytes of a file below `folder`.

    Raises: InputError where it is missing, cannot be read, or would lie outside.
    """
    path = place_of(folder, name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def place_of(folder: Path, name: str) -> Path:
    """Where a file lies that an annotation names.

    Raises: InputError where that is outside of `folder`, by its name or through a link.
    """
    path = folder / name
    try:
        is_inside = not PurePosixPath(name).is_absolute() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: {name!r} is no usable name of a file") from error
    if not is_inside or ".." in PurePosixPath(name).parts:
        raise InputError(f"{folder}: names the file {name!r}, which lies outside of it: only files below the data set's folder are read")
    return path


def lines_of(path: Path) -> list[str]:
    """The lines of a list of names, without blanks around them and without empty ones.

    Raises: InputError where the file is missing, too large, or not text.
    """
    try:
        if path.stat().st_size > MAX_LIST_MIB * 2**20:
            raise InputError(f"{path}: is larger than a list of names may be ({MAX_LIST_MIB} MiB)")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return [path for path in _listed(folder) if path.is_dir()]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures right in a folder, by their names, sorted."""
    return [path for path in _listed(folder) if path.suffix.lower() in SUFFIXES]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_ignored(path.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error


def package(name: str, *, reader: str) -> ModuleType:
    """An optional package, imported only by the reader that needs it.

    Raises: InputError where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        what = name.partition(".")[0]
        raise InputError(
            f"reader {reader}: needs the package {what}, which is not installed: pip install 'lavin-pipelines[datasets]'"
        ) from error


def relative(path: Path, folder: Path) -> str:
    """A path below `folder`, as an item's part holds it."""
    return path.relative_to(folder).as_posix()


def parts_of(parts: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """An item's parts, without empty ones."""
    return tuple((name, value) for name, value in parts if value)
