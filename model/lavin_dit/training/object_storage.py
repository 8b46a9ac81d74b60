"""Checkpoints in S3 storage, where nothing can be renamed: the marker is uploaded last and removed first."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavin_dit.bucket import Bucket
from lavin_dit.training.checkpoint_files import (
    FACTS_FILE,
    MARKER_FILE,
    DamagedError,
    StoredFile,
    parse_facts,
    parse_marker,
    step_name,
    step_of,
    verify,
)


class ObjectStorage:
    """A prefix in a bucket, with one folder of objects a checkpoint."""

    def __init__(self, url: str) -> None:
        """Asks for nothing yet.

        Raises: InputError where this is no such address.
        """
        self._bucket = Bucket(url, setting="checkpoints.location")

    @property
    def url(self) -> str:
        return self._bucket.url

    def steps(self) -> list[int]:
        """Those with a marker, the newest first.

        Raises: as every method: InputError where the bucket is absent or the keys do not suffice, StorageError where it does not answer.
        """
        files = self._bucket.files
        with self._bucket.clear_errors():
            files.info(self._bucket.root.partition("/")[0])
            objects = files.find(self._bucket.root)
        names = [name.removeprefix(f"{self._bucket.root}/").split("/") for name in objects]
        found = (step_of(name[0]) for name in names if name[1:] == [MARKER_FILE])
        return sorted((step for step in found if step is not None), reverse=True)

    def facts(self, step: int) -> dict[str, Any]:
        return parse_facts(self._read(step, FACTS_FILE), step)

    def put(self, step: int, files: Sequence[Path]) -> None:
        """Uploads files of a checkpoint."""
        with self._bucket.clear_errors():
            for file in files:
                self._bucket.files.put_file(str(file), self._address(step, file.name))

    def fetch(self, step: int, folder: Path) -> None:
        """Downloads a checkpoint into a new folder, and checks it.

        Raises: DamagedError where it is not whole.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            marker = self._read(step, MARKER_FILE)
            (folder / MARKER_FILE).write_bytes(marker)
            for file in parse_marker(marker):
                self._fetch(step, file, folder)
            verify(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def remove(self, step: int) -> None:
        """Takes a checkpoint away, or what was left of one."""
        self.unmark(step)
        with self._bucket.clear_errors():
            left = self._bucket.files.find(self._address(step))
            if left:
                self._bucket.files.rm(left)

    def unmark(self, step: int) -> None:
        """Makes a checkpoint one that is not complete."""
        marker = self._address(step, MARKER_FILE)
        with self._bucket.clear_errors():
            if self._bucket.files.exists(marker):
                self._bucket.files.rm_file(marker)

    def _fetch(self, step: int, file: StoredFile, folder: Path) -> None:
        with self._bucket.clear_errors(missing=DamagedError(f"{file.name} is missing")):
            self._bucket.files.get_file(self._address(step, file.name), str(folder / file.name))

    def _read(self, step: int, name: str) -> bytes:
        with self._bucket.clear_errors(missing=DamagedError(f"{name} is missing")):
            return bytes(self._bucket.files.cat_file(self._address(step, name)))

    def _address(self, step: int, *name: str) -> str:
        return self._bucket.address(step_name(step), *name)
