"""Shards in S3 storage, read through a local cache that is filled ahead of their use; those in a folder are read in place, without it."""

import hashlib
import logging
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from lavin_dit.bucket import Bucket
from lavin_dit.data.reading.cache_folder import CacheFolder, NoRoomError
from lavin_dit.data.reading.fetching import RETRY_DELAYS_S, fetch_checked, patiently
from lavin_dit.errors import InputError, StorageError

logger = logging.getLogger(__name__)

PREFETCH_THREADS = 4
"""One connection seldom fills a network."""
ROOM_WAIT_S = 0.05


class ShardCache:
    """Shards in S3 storage, downloaded whole into a cache and checked against their hash: a context manager."""

    def __init__(
        self, bucket: Bucket, hashes: Mapping[str, str], cache: CacheFolder, *, retry_delays_s: Collection[float] = RETRY_DELAYS_S
    ) -> None:
        """`hashes` are those of the set's manifest, by name."""
        self._bucket, self._hashes, self._cache, self._delays_s = bucket, hashes, cache, retry_delays_s
        self._held: dict[str, BufferedReader] = {}
        self._checked: set[str] = set()
        """The hashes of shards whose content this process has seen to be right."""
        self._locating = Lock()
        self._wanted: frozenset[str] = frozenset()
        self._coming: dict[str, Future[None]] = {}
        self._pool = ThreadPoolExecutor(PREFETCH_THREADS, thread_name_prefix="shards")

    def locate(self, name: str) -> Path:
        """A shard's complete file, downloaded where it has to be; it stays until `hold` is called without it.

        Raises: InputError where the set has no such shard, storage refuses, the content is not what the manifest says, or the cache is
        full of shards in use; StorageError where storage does not answer, after several tries.
        """
        sha256 = self._sha256(name)
        with self._locating:
            while name not in self._held:
                stream = self._cache.hold(sha256) if sha256 in self._checked else None
                if stream is not None:
                    self._held[name] = stream
                else:
                    self._fetch_now(name, sha256)
        return self._cache.path(sha256)

    @property
    def held(self) -> frozenset[str]:
        """The shards that were located and not let go."""
        return frozenset(self._held)

    def hold(self, now: Collection[str], ahead: Collection[str] = ()) -> None:
        """Lets go of all shards but those that are read now, and begins to fetch them and those ahead, as far as there is room."""
        with self._locating:
            for name in self._held.keys() - set(now):
                self._held.pop(name).close()
        self._wanted = frozenset(now) | frozenset(ahead)
        self._coming = {name: future for name, future in self._coming.items() if not future.done()}
        for name in (*now, *ahead):
            if name not in self._held and name not in self._coming:
                self._coming[name] = self._pool.submit(self._fetch_ahead, name)

    def close(self) -> None:
        """Lets go of every shard, and of what has not begun to be fetched."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.hold(())

    def _fetch_now(self, name: str, sha256: str) -> None:
        while True:
            try:
                return self._fetch(name, sha256, spared=())
            except NoRoomError as error:
                if not error.is_filling:
                    raise InputError(
                        f"{self._cache.folder}: cannot hold {name} beside the shards in use within its "
                        f"{self._cache.max_bytes / 2**20:.0f} MiB; allow the cache more, or read fewer shards at once"
                    ) from error
            # What comes meanwhile, ahead or for another process, can be let go once it is here.
            time.sleep(ROOM_WAIT_S)

    def _fetch_ahead(self, name: str) -> None:
        wanted = self._wanted
        if name not in wanted:
            return
        try:
            self._fetch(name, self._sha256(name), spared=[self._sha256(other) for other in wanted])
        except NoRoomError:
            logger.debug("%s: no room to fetch it ahead", name)
        except (InputError, StorageError, OSError) as error:
            # Whoever comes to need the shard tries again, and tells.
            logger.warning("%s was not fetched ahead: %s", name, error)

    def _fetch(self, name: str, sha256: str, *, spared: Collection[str]) -> None:
        with self._cache.alone(sha256):
            if not self._is_whole(sha256):
                patiently(lambda: self._download(name, sha256, spared), self._delays_s)
            self._checked.add(sha256)

    def _is_whole(self, sha256: str) -> bool:
        """Whether a shard is here; one that the disk has spoilt since it came is done away with."""
        stream = self._cache.hold(sha256)
        if stream is None:
            return False
        with stream:
            is_whole = sha256 in self._checked or hashlib.file_digest(stream, "sha256").hexdigest() == sha256
        if not is_whole:
            logger.warning("%s: was damaged, and is fetched again", self._cache.path(sha256))
            self._cache.path(sha256).unlink(missing_ok=True)
        return is_whole

    def _download(self, name: str, sha256: str, spared: Collection[str]) -> None:
        with self._cache.reserve(sha256, self._bucket.size(name), spared=spared) as path:
            fetch_checked(self._bucket, name, sha256, path)

    def _sha256(self, name: str) -> str:
        if name not in self._hashes:
            raise InputError(f"{self._bucket.url}/{name}: is not in the set's manifest; run prepare again")
        return self._hashes[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
