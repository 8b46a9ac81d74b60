"""Checkpoints in S3 storage, where nothing can be renamed: the marker is uploaded last and removed first."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavin_dit.errors import InputError, StorageError
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

SCHEME = "s3://"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60


class ObjectStorage:
    """A prefix in a bucket, with one folder of objects a checkpoint. Keys, region and endpoint come from the usual AWS_ variables."""

    def __init__(self, url: str) -> None:
        """Asks for nothing yet.

        Raises: InputError where this is no such address.
        """
        self._root = url.removeprefix(SCHEME).strip("/")
        self.url = f"{SCHEME}{self._root}"
        if not url.startswith(SCHEME) or not self._root:
            raise InputError(f"checkpoints.location is {url}: must be a folder, or s3:// and a bucket, such as s3://bucket/prefix")
        self._opened: Any = None

    def steps(self) -> list[int]:
        """Those with a marker, the newest first.

        Raises: as every method: InputError where the bucket is absent or the keys do not suffice, StorageError where it does not answer.
        """
        with self._clear_errors():
            self._files.info(self._root.partition("/")[0])
            objects = self._files.find(self._root)
        names = [name.removeprefix(f"{self._root}/").split("/") for name in objects]
        found = (step_of(name[0]) for name in names if name[1:] == [MARKER_FILE])
        return sorted((step for step in found if step is not None), reverse=True)

    def facts(self, step: int) -> dict[str, Any]:
        return parse_facts(self._read(step, FACTS_FILE), step)

    def put(self, step: int, files: Sequence[Path]) -> None:
        """Uploads files of a checkpoint."""
        with self._clear_errors():
            for file in files:
                self._files.put_file(str(file), self._address(step, file.name))

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
        with self._clear_errors():
            left = self._files.find(self._address(step))
            if left:
                self._files.rm(left)

    def unmark(self, step: int) -> None:
        """Makes a checkpoint one that is not complete."""
        marker = self._address(step, MARKER_FILE)
        with self._clear_errors():
            if self._files.exists(marker):
                self._files.rm_file(marker)

    def _fetch(self, step: int, file: StoredFile, folder: Path) -> None:
        with self._clear_errors(missing=file.name):
            self._files.get_file(self._address(step, file.name), str(folder / file.name))

    def _read(self, step: int, name: str) -> bytes:
        with self._clear_errors(missing=name):
            return bytes(self._files.cat_file(self._address(step, name)))

    def _address(self, step: int, *name: str) -> str:
        return "/".join((self._root, step_name(step), *name))

    @property
    def _files(self) -> Any:
        if self._opened is None:
            # Half a second to import, and most runs do without it.
            from s3fs import S3FileSystem  # type: ignore[import-untyped]

            timeouts = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
            self._opened = S3FileSystem(config_kwargs=timeouts, use_listings_cache=False, skip_instance_cache=True)
        return self._opened

    @contextmanager
    def _clear_errors(self, *, missing: str | None = None) -> Iterator[None]:
        """One sentence for what storage refuses; `missing` names an object whose absence means damage."""
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError  # type: ignore[import-untyped]

        try:
            yield
        except FileNotFoundError as error:
            if error.filename:
                raise
            if missing is not None:
                raise DamagedError(f"{missing} is missing") from error
            raise InputError(f"{self.url}: there is no such bucket ({_short(error)}); see checkpoints.location") from error
        except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
            if isinstance(error, OSError) and error.filename:
                raise
            raise InputError(
                f"{self.url}: refuses the keys, or needs some ({_short(error)}); they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except (OSError, BotoCoreError, ClientError) as error:
            # An error with a file's name is the disk's.
            if isinstance(error, OSError) and error.filename:
                raise
            raise StorageError(f"{self.url}: cannot be reached ({_short(error)}); try again when it answers") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
