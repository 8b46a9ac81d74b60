"""Access to S3 storage: a prefix in a bucket, and one sentence for whatever it refuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavin_dit.errors import FULL_DISK, InputError, StorageError

SCHEME = "s3://"
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:.+")
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60


class Bucket:
    """A prefix in a bucket. Keys, region and endpoint come from the usual AWS_ variables."""

    def __init__(self, url: str, *, setting: str) -> None:
        """Asks for nothing yet; `setting` is what a refusal tells the user to look at.

        Raises: InputError where this is no such address.
        """
        self.root = url.removeprefix(SCHEME).strip("/")
        self.url = f"{SCHEME}{self.root}"
        self._setting = setting
        if not url.startswith(SCHEME) or not self.root:
            raise InputError(f"{setting} is {url}: must be a folder, or s3:// and a bucket, such as s3://bucket/prefix")
        bucket = self.root.partition("/")[0]
        if not BUCKET_NAME.fullmatch(bucket):
            raise InputError(
                f"{setting} is {url}: the bucket's name {bucket} may hold letters, digits, dots, hyphens and underscores alone"
            )
        self._opened: Any = None

    def address(self, *name: str) -> str:
        """Where an object below the prefix lies, as `files` takes it."""
        return "/".join((self.root, *name))

    @property
    def files(self) -> Any:
        """The client, opened when it is first asked for."""
        if self._opened is None:
            # Half a second to import, and most runs do without it.
            from s3fs import S3FileSystem  # type: ignore[import-untyped]

            timeouts = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
            self._opened = S3FileSystem(config_kwargs=timeouts, use_listings_cache=False, skip_instance_cache=True)
        return self._opened

    def size(self, name: str) -> int:
        """Bytes of an object. Raises: as `fetch`."""
        with self.clear_errors(missing=InputError(f"{self.url}/{name}: is missing")):
            return int(self.files.info(self.address(name))["size"])

    def fetch(self, name: str, path: Path) -> None:
        """Downloads an object; what is left at `path` by a failure is not whole.

        Raises: InputError where the object or the bucket is absent or the keys do not suffice, StorageError where storage does not answer.
        """
        with self.clear_errors(missing=InputError(f"{self.url}/{name}: is missing")):
            self.files.get_file(self.address(name), str(path))

    @contextmanager
    def clear_errors(self, *, missing: Exception | None = None) -> Iterator[None]:
        """One sentence for what storage refuses; `missing` is raised where an object is not there, in place of the bucket's absence."""
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError  # type: ignore[import-untyped]

        try:
            yield
        except FileNotFoundError as error:
            if is_the_disks(error):
                raise
            if missing is not None:
                raise missing from error
            raise InputError(f"{self.url}: there is no such bucket ({one_line(error)}); see {self._setting}") from error
        except (PermissionError, NoCredentialsError, PartialCredentialsError) as error:
            if is_the_disks(error):
                raise
            raise InputError(
                f"{self.url}: refuses the keys, or needs some ({one_line(error)}); they come from AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            ) from error
        except (OSError, BotoCoreError, ClientError) as error:
            if is_the_disks(error):
                raise
            raise StorageError(f"{self.url}: cannot be reached ({one_line(error)}); try again when it answers") from error
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.url}: cannot be asked ({one_line(error)}); see AWS_ENDPOINT_URL and {self._setting}") from error


def is_the_disks(error: Exception) -> bool:
    """Whether an error is the local disk's: storage's own name no file."""
    return isinstance(error, OSError) and (bool(error.filename) or error.errno in FULL_DISK)


def one_line(error: Exception) -> str:
    """What went wrong, without the address, which is told already."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
