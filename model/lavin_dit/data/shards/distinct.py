"""The distinct pictures and clips of a set, named by their content: tasks share their scenes' pictures, which are worked on once."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.digests import DIGEST_BYTES, content_digest
from lavin_dit.data.shards.index import ShardIndex
from lavin_dit.data.shards.shard_set import Member, ShardSet

KEY = np.dtype(f"S{DIGEST_BYTES}")

Frames = tuple[Member, ...]


def content_key(frames: Frames) -> bytes:
    """What names a picture or a clip: the digest of a picture, or that of the digests of a clip's frames."""
    return _key(bytes.fromhex("".join(member.digest for member in frames)))


def _key(digests: bytes) -> bytes:
    return digests if len(digests) == DIGEST_BYTES else content_digest(digests)


class DistinctFrames(Sequence[Frames]):
    """Every distinct picture, or clip, of an index's pairs once, in the order of the shards; each is made when it is asked for."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index
        pairs = index.columns["pair_members"]
        self.num_frames: int = pairs.shape[2]
        members = np.unique(pairs.reshape(-1, self.num_frames), axis=0)
        keys, firsts = np.unique(self._keys_of(members), return_index=True)
        order = np.argsort(firsts)
        self._members, self.keys = members[firsts[order]], keys[order]
        """Of 16 bytes each."""

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, position: int) -> Frames: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Frames, ...]: ...
    def __getitem__(self, position: int | slice) -> Frames | tuple[Frames, ...]:
        if isinstance(position, slice):
            return tuple(self[number] for number in range(*position.indices(len(self))))
        return tuple(self._index.member(int(number)) for number in self._members[position])

    def _keys_of(self, members: NDArray[np.uint32]) -> NDArray[np.bytes_]:
        if self.num_frames == 1:
            return self._index.digests[members[:, 0]].view(KEY)[:, 0]
        return np.array([_key(self._index.digests[numbers].tobytes()) for numbers in members], KEY)


class DistinctPictures(Sequence[Member]):
    """Every distinct picture of an index once, in the order of their digests; each is made when it is asked for."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index
        _, self._firsts = np.unique(index.digests.view(KEY)[:, 0], return_index=True)

    def __len__(self) -> int:
        return len(self._firsts)

    @overload
    def __getitem__(self, position: int) -> Member: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Member, ...]: ...
    def __getitem__(self, position: int | slice) -> Member | tuple[Member, ...]:
        if isinstance(position, slice):
            return tuple(self[number] for number in range(*position.indices(len(self))))
        return self._index.member(int(self._firsts[position]))


def unique_members(shards: ShardSet) -> Sequence[Member]:
    """Every distinct picture of a set once; those of clips only where there are no others."""
    indices = sorted(shards.indices.values(), key=lambda index: index.num_members == 0)
    return DistinctPictures(indices[0]) if indices else ()
