"""Parts written by several processes at once, of which none outlives the one that started them."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

from lavin_dit.data.preparing.making import Workshop
from lavin_dit.data.preparing.work import PART_PICTURES, STAGES, Work
from lavin_dit.data.shards.parts import is_finished
from lavin_dit.progress import Progress

logger = logging.getLogger(__name__)

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
PICTURES_PER_WORKER = 4 * PART_PICTURES
"""Fewer are not worth a process, which takes a second to start."""


def write_parts(workshop: Workshop, works: Sequence[Work], *, num_workers: int) -> None:
    """Writes the parts that are not there yet, stage by stage. The parts are the same for any number of workers.

    Raises: InputError naming the file that cannot be read; BrokenProcessPool where a worker dies.
    """
    missing = [work for work in works if not is_finished(workshop.files_of(work))]
    num_pictures = sum(len(work.items) * workshop.num_frames(work) for work in missing)
    with _pool(min(num_workers, num_pictures // PICTURES_PER_WORKER)) as pool:
        for name, origins in STAGES.items():
            stage = [work for work in works if work.origin in origins]
            if stage:
                _write_stage(name, workshop, stage, [work for work in missing if work.origin in origins], pool)


def usable_cpus() -> int:
    """Processors that this process may use at once: the least of its affinity and of its container's limit."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not CGROUP_LIMIT.is_file():
        return affinity
    quota, period = CGROUP_LIMIT.read_text(encoding="ascii").split()
    return affinity if quota == "max" else max(1, min(affinity, int(quota) // int(period)))


def _write_stage(name: str, workshop: Workshop, stage: Sequence[Work], missing: Sequence[Work], pool: ProcessPoolExecutor | None) -> None:
    total, left = (sum(len(work.items) for work in works) for works in (stage, missing))
    with Progress(name, total, done=total - left) as progress:
        for work in _written(workshop, missing, pool):
            progress.advance(len(work.items))


def _written(workshop: Workshop, works: Sequence[Work], pool: ProcessPoolExecutor | None) -> Iterator[Work]:
    if pool is None:
        for work in works:
            workshop.write(work)
            yield work
        return
    coming: dict[Future[None], Work] = {pool.submit(workshop.write, work): work for work in works}
    for future in as_completed(coming):
        future.result()
        yield coming[future]


@contextmanager
def _pool(num_workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Workers that are ended at once when the block fails; None for less than two, where this process does the work."""
    if num_workers < 2:
        yield None
        return
    others = multiprocessing.active_children()
    # A fork would copy whatever threads of this process hold at that moment.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        yield pool
    except BaseException:
        workers = [process for process in multiprocessing.active_children() if process not in others]
        for process in workers:
            process.terminate()
        pool.shutdown(cancel_futures=True)
        for process in workers:
            process.join()
        raise
    pool.shutdown()


def _begin_worker() -> None:
    """Leaves Ctrl-C to the process that started this one, and ends with it, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
