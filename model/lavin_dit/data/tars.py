"""Files in tars: written with the same bytes every time, read in place through mmap, each verified before it is decoded."""

import hashlib
import mmap
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.picture_files import decode_picture
from lavin_dit.errors import InputError

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)
MAX_NAME = tarfile.LENGTH_NAME
"""Of a member without folders in its name, as plain tars have room for."""

Locate = Callable[[str], Path]
"""From a shard's name to a complete file on this machine."""


@dataclass(frozen=True)
class Member:
    """Where the bytes of one picture lie, and what they must hash to."""

    shard: str
    offset: int
    size: int
    sha256: str


def tar_entry(name: str, content: bytes) -> bytes:
    """A file as it stands in a tar: its header, of one block, its bytes, and zeros up to the next block."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


class TarReader:
    """Reads members of tars that `locate` finds."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._maps: dict[str, mmap.mmap] = {}

    def content(self, member: Member) -> bytes:
        """The bytes of one member.

        Raises: InputError naming the tar, and the member where the bytes are not those that were written.
        """
        shard = self._map(member.shard)
        if member.offset + member.size > len(shard):
            raise InputError(
                f"{self._locate(member.shard)}: ends before byte {member.offset + member.size} of the index; run prepare again"
            )
        content = shard[member.offset : member.offset + member.size]
        if hashlib.sha256(content).hexdigest() != member.sha256:
            raise InputError(f"{self._label(member)} does not match its hash in the index; run prepare again")
        return content

    def picture(self, member: Member, *, resolution: int) -> NDArray[np.uint8]:
        """One picture. Shapes: (h, w, 3) uint8.

        Raises: InputError, as `content`, and where the bytes are no picture of that size.
        """
        content = self.content(member)
        try:
            return decode_picture(content, resolution=resolution)
        except InputError as error:
            raise InputError(f"{self._label(member)} {error}; run prepare again") from error

    def release(self, shard: str) -> None:
        """Lets go of a tar, so that its file can be given up; it is mapped again when it is next read."""
        if shard in self._maps:
            self._maps.pop(shard).close()

    def close(self) -> None:
        """Releases all tars; they can be read again afterwards."""
        for shard in tuple(self._maps):
            self.release(shard)

    def _map(self, shard: str) -> mmap.mmap:
        if shard not in self._maps:
            self._maps[shard] = _map_file(self._locate(shard))
        return self._maps[shard]

    def _label(self, member: Member) -> str:
        """What an error names: the header right before a member knows its name, unless it is damaged as well."""
        header = self._map(member.shard)[max(0, member.offset - BLOCK) : member.offset]
        try:
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except tarfile.TarError:
            name = f"the member at byte {member.offset}"
        return f"{self._locate(member.shard)}: {name}"


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run prepare again") from error
