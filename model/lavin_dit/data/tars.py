"""Pictures in tars: appended with the same bytes every time, read in place through mmap, each verified before it is decoded."""

import hashlib
import io
import mmap
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.errors import InputError

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)


@dataclass(frozen=True)
class Member:
    """Where the bytes of one picture lie, and what they must hash to."""

    shard: str
    offset: int
    size: int
    sha256: str


class TarWriter:
    """Numbered tars of at most `max_bytes`, `<stem>-00000.tar` and so on; what is appended together is never torn apart."""

    def __init__(self, folder: Path, stem: str, max_bytes: int) -> None:
        self._folder, self._stem, self._max_bytes = folder, stem, max_bytes
        self._stream: BinaryIO | None = None
        self._num_tars = 0

    def append(self, contents: Mapping[str, bytes]) -> list[Member]:
        """Appends files by name, into one tar."""
        needed = sum(BLOCK + _padded(len(content)) for content in contents.values()) + len(END_OF_TAR)
        stream = self._stream_with_room(needed)
        return [_append(stream, name, content) for name, content in contents.items()]

    def _stream_with_room(self, needed: int) -> BinaryIO:
        if self._stream is not None and self._stream.tell() + needed > self._max_bytes:
            self.close()
        if self._stream is None:
            self._stream = (self._folder / f"{self._stem}-{self._num_tars:05d}.tar").open("wb")
            self._num_tars += 1
        return self._stream

    def close(self) -> None:
        """Ends the tar that is being written, if any."""
        if self._stream is not None:
            self._stream.write(END_OF_TAR)
            self._stream.close()
            self._stream = None


class TarReader:
    """Reads members of the tars of a folder, where `TarWriter` has put them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def picture(self, member: Member, *, key: str) -> NDArray[np.uint8]:
        """One picture. Shapes: (h, w, 3) uint8.

        Raises: InputError naming the tar, and `key` where the bytes are not those that were written.
        """
        content = self._map(member.shard)[member.offset : member.offset + member.size]
        if hashlib.sha256(content).hexdigest() != member.sha256:
            raise InputError(f"{self._folder / member.shard}: the content of {key} does not match its hash in the index; run prepare again")
        with Image.open(io.BytesIO(content), formats=["png"]) as picture:
            return np.asarray(picture.convert("RGB"))

    def _map(self, shard: str) -> mmap.mmap:
        if shard not in self._maps:
            self._maps[shard] = _map_file(self._folder / shard)
        return self._maps[shard]

    def close(self) -> None:
        """Releases the tars; they can be read again afterwards."""
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()


def _append(stream: BinaryIO, name: str, content: bytes) -> Member:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    stream.write(header.tobuf(tarfile.USTAR_FORMAT))
    offset = stream.tell()
    stream.write(content + bytes(_padded(len(content)) - len(content)))
    return Member(Path(stream.name).name, offset, len(content), hashlib.sha256(content).hexdigest())


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run prepare again") from error
