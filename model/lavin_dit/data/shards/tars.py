"""Files in tars: written with the same bytes every time, read in place through mmap, each verified whenever it is read."""

import mmap
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.digests import content_digest
from lavin_dit.data.shards.picture_files import decode_picture
from lavin_dit.errors import InputError

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)
MAX_NAME = tarfile.LENGTH_NAME
"""Of a member without folders in its name, as plain tars have room for."""

Locate = Callable[[str], Path]
"""From a shard's name to a complete file on this machine."""


@dataclass(frozen=True)
class Member:
    """Where the bytes of one picture lie, and what they must hash to, in hexadecimal."""

    shard: str
    offset: int
    size: int
    digest: str


def tar_entry(name: str, content: bytes) -> bytes:
    """A file as it stands in a tar: its header, of one block, its bytes, and zeros up to the next block."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


class TarReader:
    """Reads members of tars that `locate` finds."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._tars: dict[str, mmap.mmap] = {}

    def content(self, member: Member) -> bytes:
        """The bytes of one member.

        Raises: InputError naming the tar, and the member where the bytes are not those that were written.
        """
        tar = self._tar(member.shard)
        if member.offset + member.size > len(tar):
            raise InputError(
                f"{self._locate(member.shard)}: ends before byte {member.offset + member.size} of the index; run prepare again"
            )
        content = tar[member.offset : member.offset + member.size]
        if content_digest(content).hex() != member.digest:
            raise InputError(f"{self._label(member)} does not match its hash in the index; run prepare again")
        return content

    def decode(self, member: Member, content: bytes, *, resolution: int) -> NDArray[np.uint8]:
        """The picture that a member's content is. Shapes: (h, w, 3) uint8.

        Raises: InputError where it is no picture of that size.
        """
        try:
            return decode_picture(content, resolution=resolution)
        except InputError as error:
            raise InputError(f"{self._label(member)} {error}; run prepare again") from error

    def release(self, shard: str) -> None:
        """Lets go of a tar, so that its file can be given up; it is mapped again when it is next read."""
        if shard in self._tars:
            self._tars.pop(shard).close()

    def close(self) -> None:
        """Releases all tars; they can be read again afterwards."""
        for shard in tuple(self._tars):
            self.release(shard)

    def _tar(self, shard: str) -> mmap.mmap:
        if shard not in self._tars:
            self._tars[shard] = _map_file(self._locate(shard))
        return self._tars[shard]

    def _label(self, member: Member) -> str:
        """What an error names: the header right before a member knows its name, unless it is damaged as well."""
        header = self._tar(member.shard)[max(0, member.offset - BLOCK) : member.offset]
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
