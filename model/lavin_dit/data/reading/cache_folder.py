"""A folder of bounded size that processes share: files are reserved room before they come, held while in use, and evicted after.

A file lies there under its hash, and only ever whole. Who reads it holds a shared lock on it, which the kernel gives back when the process
dies; what nobody holds may be evicted, the least recently used first. What a killed download leaves is cleared away by the next one.
"""

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from filelock import FileLock, Timeout

from lavin_dit.errors import InputError

FILE_NAME = re.compile(r"[0-9a-f]{64}")
PARTIAL, RESERVED, LOCK = ".partial", ".reserved", ".lock"
ROOM_LOCK = "room.lock"


class NoRoomError(Exception):
    """Everything in the folder is in use, or spared, or still to come."""

    def __init__(self, sha256: str, *, is_filling: bool) -> None:
        """`is_filling`: whether something is still to come, which may be evicted once it is there."""
        super().__init__(sha256)
        self.is_filling = is_filling


class CacheFolder:
    """Files by the sha256 of their content, which together take at most `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises: InputError where there can be no such folder."""
        self.folder, self.max_bytes = folder, max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); XDG_CACHE_HOME names another place for caches") from error

    def path(self, sha256: str) -> Path:
        """Where a file lies once it is whole."""
        return self.folder / sha256

    def hold(self, sha256: str) -> BufferedReader | None:
        """A whole file, which is not evicted before the stream is closed; None where it is not here."""
        path = self.path(sha256)
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return None
        fcntl.flock(stream, fcntl.LOCK_SH)
        if os.fstat(stream.fileno()).st_nlink == 0:
            # Evicted between the opening and the lock.
            stream.close()
            return None
        os.utime(path)
        return stream

    @contextmanager
    def alone(self, sha256: str) -> Iterator[None]:
        """One of all processes and threads at a time may be within, for a file."""
        with FileLock(self._beside(sha256, LOCK)):
            yield

    @contextmanager
    def reserve(self, sha256: str, num_bytes: int, *, spared: Collection[str] = ()) -> Iterator[Path]:
        """Room for a file of this size, and where to put it; it is in the folder when the block ends without an error.

        Only within `alone`. Raises: NoRoomError where the files that are held and `spared` leave too little.
        """
        partial = self._beside(sha256, PARTIAL)
        with self._room_lock():
            self._make_room(sha256, num_bytes, spared)
        try:
            yield partial
            _flush(partial)
            with self._room_lock():
                partial.replace(self.path(sha256))
                self._forget(sha256)
        finally:
            self._forget(sha256)

    def _make_room(self, sha256: str, num_bytes: int, spared: Collection[str]) -> None:
        self._forget(sha256)
        self._forget_the_dead()
        sizes = {path: path.stat() for path in self.folder.iterdir() if FILE_NAME.fullmatch(path.name)}
        reserved = sum(path.stat().st_size for path in self.folder.glob(f"*{RESERVED}"))
        surplus = sum(stat.st_size for stat in sizes.values()) + reserved + num_bytes - self.max_bytes
        for path in sorted(sizes, key=lambda path: sizes[path].st_mtime_ns):
            if surplus > 0 and path.name not in spared and _evict(path):
                surplus -= sizes[path].st_size
        if surplus > 0:
            raise NoRoomError(sha256, is_filling=reserved > 0)
        # A file without blocks, which says in its size what is still to come.
        with self._beside(sha256, RESERVED).open("wb") as stream:
            stream.truncate(num_bytes)

    def _forget_the_dead(self) -> None:
        """Clears away the reservations of downloads that nobody is at any longer."""
        for path in self.folder.glob(f"*{RESERVED}"):
            try:
                with FileLock(path.with_suffix(LOCK), timeout=0):
                    self._forget(path.stem)
            except Timeout:
                continue

    def _forget(self, sha256: str) -> None:
        for suffix in (PARTIAL, RESERVED):
            self._beside(sha256, suffix).unlink(missing_ok=True)

    def _beside(self, sha256: str, suffix: str) -> Path:
        return self.folder / f"{sha256}{suffix}"

    def _room_lock(self) -> FileLock:
        return FileLock(self.folder / ROOM_LOCK)


def _evict(path: Path) -> bool:
    """Whether a file could be removed: nobody holds it."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
        return True


def _flush(path: Path) -> None:
    """A file that is renamed before it is on the disk may be empty after a crash."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
