"""Versions of the data folder, each as the md5 of its files by name, and their contents: from DVC's cache, or else from its remote.

No revision is checked out. The files that lie in the folder now are a version too.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from components.data_version import file_md5
from components.dataset_checkout import Checkout
from components.dvc_files import Output, read_listing
from components.dvc_storage import LocalDvc, Storage
from lavin_dit.errors import InputError


class Objects:
    """Files by their md5."""

    def __init__(self, checkout: Checkout, output: Output | None, fetched: Path) -> None:
        self._dvc = LocalDvc(checkout.root)
        self._remote_name = output.remote if output else None
        self._fetched = fetched

    def path(self, md5: str) -> Path:
        """A file here with that content.

        Raises: InputError where neither cache nor remote have it; StepFailedError where the remote cannot be reached.
        """
        self.fetch([md5])
        return self._known(md5) or self._fetched / md5

    def fetch(self, md5s: Iterable[str]) -> None:
        """Fetches those that are not here, many at a time.

        Raises: as `path` does.
        """
        owed = {self._fetched / md5: md5 for md5 in md5s if self._known(md5) is None}
        if owed:
            self._remote.get_all(owed)

    def is_cached(self, md5: str) -> bool:
        """Whether it is here without fetching."""
        return self._known(md5) is not None

    def is_pushed(self, md5: str) -> bool:
        """Whether the remote has a folder of that md5, and so all that it lists.

        Raises: as `path` does.
        """
        return self._remote.holds(md5)

    def listing(self, md5: str) -> dict[str, str]:
        """The files of a folder.

        Raises: as `path` does, and InputError where the listing is damaged.
        """
        return read_listing(self.path(md5).read_bytes(), md5)

    @property
    def remote_url(self) -> str:
        """Where the remote is.

        Raises: InputError where there is none.
        """
        return self._remote.url

    @cached_property
    def _remote(self) -> Storage:
        return self._dvc.remote(self._remote_name)

    def _known(self, md5: str) -> Path | None:
        return next((path for path in (self._dvc.cached(md5), self._fetched / md5) if path.is_file()), None)


class Place(Protocol):
    """Brings the contents of a version's files here."""

    def path(self, name: str) -> Path: ...
    def fetch(self, names: Iterable[str]) -> None: ...


@dataclass(frozen=True)
class Version:
    """One state of the data. `title` is what people call it."""

    title: str
    files: Mapping[str, str]
    place: Place


@dataclass(frozen=True)
class _Committed:
    files: Mapping[str, str]
    objects: Objects

    def path(self, name: str) -> Path:
        return self.objects.path(self.files[name])

    def fetch(self, names: Iterable[str]) -> None:
        self.objects.fetch(self.files[name] for name in names)


@dataclass(frozen=True)
class _Working:
    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def fetch(self, names: Iterable[str]) -> None:
        """All is here."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Where objects are fetched to that are not in the cache; gone afterwards."""
    with TemporaryDirectory(prefix="lavin-data-") as name:
        yield Path(name)


def version_at(checkout: Checkout, revision: str, fetched: Path) -> Version:
    """The data that a commit means; none where it has no `.dvc` file of them.

    Raises: InputError where there is no such commit, or its data are neither in the cache nor in the remote.
    """
    output = checkout.output_at(checkout.commit_of(revision))
    objects = Objects(checkout, output, fetched)
    files = objects.listing(output.md5) if output else {}
    return Version(revision, files, _Committed(files, objects))


def version_here(checkout: Checkout, fetched: Path) -> Version:
    """The files that lie in the folder now. Only those that changed since they were added are read.

    Raises: InputError where the folder is absent.
    """
    if not checkout.folder.is_dir():
        wanted = "`lavin data pull` brings the tracked version" if checkout.output_here() else "`lavin data add` begins a first version"
        raise InputError(f"{checkout.path}: is not here; {wanted}")
    return Version("now", _files_here(checkout, fetched), _Working(checkout.folder))


def _files_here(checkout: Checkout, fetched: Path) -> dict[str, str]:
    output = checkout.output_here()
    objects = Objects(checkout, output, fetched)
    if output is None or not objects.is_cached(output.md5):
        return _read_all(checkout.folder)
    files = objects.listing(output.md5)
    changed = json.loads(checkout.dvc("data", "status", "--granular", "--json", str(checkout.path)) or "{}").get("uncommitted", {})
    for name in _names(checkout, changed.get("deleted", [])):
        files.pop(name, None)
    for name in _names(checkout, [*changed.get("added", []), *changed.get("modified", [])]):
        files[name] = file_md5(checkout.folder / name)
    return files


def _names(checkout: Checkout, paths: Iterable[str]) -> list[str]:
    """Files alone: DVC tells the folder itself too, with a slash at its end."""
    start = f"{checkout.path}/"
    return [path.removeprefix(start) for path in paths if path.startswith(start) and not path.endswith("/")]


def _read_all(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_md5(path) for path in files}
