"""Many pictures of a set at once: decoding lets go of the interpreter, so that threads share it out."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.shard_set import Member, ShardSet


class PictureLoader:
    """Reads pictures of a set, and decodes them in several threads: a context manager."""

    def __init__(self, shards: ShardSet, *, num_threads: int) -> None:
        self._shards = shards
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="pictures")

    def pictures(self, members: Iterable[Member]) -> list[NDArray[np.uint8]]:
        """In the order of the members, for any number of threads. Shapes: each `(h, w, 3)`.

        Each is read before the next member is asked for, while its shard is at hand.
        """
        coming = [self._pool.submit(self._shards.decode, member, self._shards.content(member)) for member in members]
        return [future.result() for future in coming]

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
