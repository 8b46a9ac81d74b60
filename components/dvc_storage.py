"""Reads objects from a DVC remote by their hash. The only module that uses DVC's Python API."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from components.dvc_files import CONFIG, object_place
from components.entry import StepFailedError
from components.pod_environment import OBJECT_STORE_SECRET
from lavin_dit.bucket import is_the_disks, one_line
from lavin_dit.errors import InputError
from lavin_dit.progress import Progress

DOWNLOADS = 16
"""Files that are fetched at a time."""


@dataclass(frozen=True)
class Storage:
    """A DVC remote, to read from. Its client repeats what the network broke, with a growing pause."""

    url: str
    files: Any
    """DVC's file system."""
    path: str
    """Of the remote in it."""

    @classmethod
    def at(cls, url: str, **settings: object) -> Self:
        """A remote that is known by its url alone; settings go by DVC's names."""
        # DVC takes half a second to import, and most steps do without it.
        from dvc.fs import get_cloud_fs

        kind, config, path = get_cloud_fs(None, url=url, **settings)
        return cls(url, kind(**config), path)

    def get(self, md5: str, target: Path) -> None:
        """Copies the object of a hash into a file.

        Raises: InputError where the remote does not have it, or refuses the keys; StepFailedError where the network failed again and again.
        """
        with self._clear_errors(md5):
            self.files.get_file(self._place(md5), str(target))

    def get_all(self, targets: Mapping[Path, str], *, done: int = 0) -> None:
        """Copies the object of each hash into its file, many at a time, and tells how far it is, after `done` files before.

        Raises: as `get` does.
        """
        for parent in sorted({target.parent for target in targets}):
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            pending = [pool.submit(self.get, md5, target) for target, md5 in targets.items()]
            try:
                with Progress("fetch files", done + len(targets), done=done) as progress:
                    for fetched in as_completed(pending):
                        fetched.result()
                        progress.advance()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def holds(self, md5: str) -> bool:
        """Whether the remote has the object of a hash; a folder's is pushed after all that the folder holds.

        Raises: as `get` does.
        """
        with self._clear_errors(md5):
            return bool(self.files.exists(self._place(md5)))

    def etags(self) -> dict[str, str]:
        """What the store calls the content of each object below the url, by its name there.

        Raises: as `get` does.
        """
        with self._clear_errors("a folder"):
            # What was seen before may have changed since.
            self.files.fs.invalidate_cache()
            found = self.files.fs.find(self.path, detail=True)
        return {self.files.relpath(path, self.path): str(entry["ETag"]).strip('"') for path, entry in found.items()}

    def _place(self, md5: str) -> str:
        return str(self.files.join(self.path, object_place(md5)))

    @contextmanager
    def _clear_errors(self, md5: str) -> Iterator[None]:
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError  # type: ignore[import-untyped]

        url = self.url
        try:
            yield
        except FileNotFoundError as error:
            raise InputError(f"{url}: does not hold {md5} of the data; run `dvc push` where they were added ({one_line(error)})") from error
        except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
            if is_the_disks(error):
                raise
            raise InputError(
                f"{url}: refuses the keys, or needs some ({one_line(error)}); they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                f"on a cluster from the Secret {OBJECT_STORE_SECRET}"
            ) from error
        except (OSError, BotoCoreError, ClientError) as error:
            if is_the_disks(error):
                raise
            raise StepFailedError(f"{url}: cannot be reached ({one_line(error)}); try again when the object store answers") from error


class LocalDvc:
    """What DVC knows in a person's own repository, by all settings of that person: where its cache is, and its remote."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def cached(self, md5: str) -> Path:
        """Where the cache keeps the object of a hash, whether or not it is there."""
        return Path(self._repo.cache.local.path) / md5[:2] / md5[2:]

    def remote(self, name: str | None) -> Storage:
        """The remote of that name, or else the default one.

        Raises: InputError where there is none.
        """
        from dvc.config import ConfigError

        try:
            found = self._repo.cloud.get_remote(name)
        except ConfigError as error:
            raise InputError(f"{self._root / CONFIG}: names no DVC remote to use; run `dvc remote add --default NAME s3://…`") from error
        return Storage(found.fs.unstrip_protocol(found.path), found.fs, found.path)

    def bucket(self, url: str) -> Storage:
        """A folder of a bucket, which need not be a remote."""
        from dvc.fs import get_cloud_fs

        kind, config, path = get_cloud_fs(self._repo.config, url=url)
        return Storage(url, kind(**config), path)

    @cached_property
    def _repo(self) -> Any:
        from dvc.repo import Repo

        # DVC says what it does by itself; only what it fails at concerns anybody here.
        logging.getLogger("dvc").setLevel(logging.ERROR)
        return Repo(str(self._root))
