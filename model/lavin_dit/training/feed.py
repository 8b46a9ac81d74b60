"""The micro-batches of every step, loaded while the step before is learnt from."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Generic, Self, TypeVar

from lavin_dit.training.objective import Objective
from lavin_dit.training.processes import Processes

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class MicroBatch(Generic[BatchT]):
    """Some of a process's samples, and their part of the global batch."""

    batch: BatchT
    weight: float


def micro_ranges(processes: Processes, batch_size: int, micro_batch: int | None) -> list[range]:
    """This process's samples in as many parts as any process needs, so that all of them call the network equally often.

    A part is empty where another process has a sample more.
    """
    largest = -(-batch_size // processes.world_size)
    count = -(-largest // (micro_batch or largest))
    share = processes.share(batch_size)
    bounds = [share.start + index * len(share) // count for index in range(count + 1)]
    return [range(first, last) for first, last in pairwise(bounds)]


class Feed(Generic[BatchT]):
    """A context manager that gives the micro-batches of a data position, and loads those of the next one meanwhile."""

    def __init__(self, objective: Objective[BatchT], ranges: Sequence[range], batch_size: int) -> None:
        self._objective, self._ranges, self._batch_size = objective, ranges, batch_size
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._next: tuple[int, Future[list[MicroBatch[BatchT]]]] | None = None

    def __enter__(self) -> Self:
        return self

    def take(self, position: int, *, is_last: bool) -> list[MicroBatch[BatchT]]:
        """The micro-batches of a position; positions mostly come one after the other."""
        waiting = self._next[1] if self._next and self._next[0] == position else self._pool.submit(self._load, position)
        micro_batches = waiting.result()
        self._next = None if is_last else (position + 1, self._pool.submit(self._load, position + 1))
        return micro_batches

    def _load(self, position: int) -> list[MicroBatch[BatchT]]:
        return [self._part(position, samples) for samples in self._ranges]

    def _part(self, position: int, samples: range) -> MicroBatch[BatchT]:
        # An empty part still takes part, with a sample that does not count.
        chosen = samples or range(samples.start, samples.start + 1)
        return MicroBatch(self._objective.batch(position, chosen), len(samples) / self._batch_size)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
