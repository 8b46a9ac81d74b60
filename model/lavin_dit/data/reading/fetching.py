"""Files fetched from S3 storage: never a part of one taken for the whole, and tried again where storage is at fault."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

from lavin_dit.bucket import Bucket
from lavin_dit.errors import InputError, StorageError
from lavin_dit.hashing import file_sha256

RETRY_DELAYS_S = (1.0, 3.0, 10.0, 30.0)


class DamagedDownloadError(InputError):
    """What was downloaded is not what the manifest says."""


def fetch_checked(bucket: Bucket, name: str, sha256: str, path: Path) -> None:
    """Downloads an object once; what is left at `path` by a failure is not to be used.

    Raises: DamagedDownloadError where the content is not what it must be, and as `Bucket.fetch`.
    """
    bucket.fetch(name, path)
    if file_sha256(path) != sha256:
        raise DamagedDownloadError(f"{bucket.url}/{name}: does not match its hash in the set's manifest; upload the set again")


def patiently(attempt: Callable[[], None], delays_s: Collection[float] = RETRY_DELAYS_S) -> None:
    """Tries until it works, with a pause after each failure that storage or the way from it may be at fault for; the last one counts."""
    for delay_s in delays_s:
        try:
            attempt()
        except (StorageError, DamagedDownloadError):
            time.sleep(delay_s)
        else:
            return
    attempt()
