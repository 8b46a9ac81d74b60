"""Ends a process that makes no progress, and says which rank is at fault: a stall of data, a hung collective, a lost node."""

import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, NoReturn, Self

from lavin_dit.errors import STALLED_PREFIX
from lavin_dit.training.heartbeats import (
    Heartbeat,
    Peers,
    Sighting,
    fault,
    heartbeat_file,
    main_thread_place,
    stay,
    write_heartbeat,
)
from lavin_dit.training.processes import Processes

Phase = Literal["start", "encoding", "data", "update", "checkpoint"]

EXIT_CODE = 1
BEATS_PER_TIMEOUT = 10
LONGEST_BEAT_S = 5.0
STANDARD_ERROR = 2


class _Point(NamedTuple):
    moves: int
    step: int
    phase: Phase
    signs: int = 0


class Watchdog:
    """Watches the main thread from beside it, for as long as the context lasts.

    Every rank leaves heartbeats in `folder`, which all of them share. One that is held up for longer than `timeout_s`, by itself or by
    another, names the rank at fault in a line on standard error, and ends at once with exit code 1: a main thread that hangs in a read or
    a collective meets no exception. Time for which the process itself was stopped does not count.
    """

    def __init__(self, folder: Path, processes: Processes, timeout_s: float) -> None:
        self._folder, self._timeout_s = folder, timeout_s
        self._rank = processes.rank
        self._host = socket.gethostname()
        self._peers = Peers(folder, (rank for rank in range(processes.world_size) if rank != processes.rank))
        self._beat_s = min(timeout_s / BEATS_PER_TIMEOUT, LONGEST_BEAT_S)
        self._point = self._seen = _Point(0, 0, "start")
        self._age_s, self._since = 0.0, _wall_clock()
        self._own = self._heartbeat(0)
        self._view: list[Sighting] | None = None
        """The other ranks, at the last look; none where the last look is too long ago."""
        self._answered = time.monotonic()
        self._is_over = threading.Event()
        # Reading and writing may hang with the storage that the training hangs on, and the judge must not.
        self._threads = [threading.Thread(target=work, daemon=True, name=work.__name__) for work in (self._judge, self._exchange)]

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(LONGEST_BEAT_S)
        with suppress(OSError):
            heartbeat_file(self._folder, self._rank).unlink(missing_ok=True)
            self._folder.rmdir()

    def at(self, step: int, phase: Phase) -> None:
        """Says where the main thread is from now on; every rank says the same things in the same order."""
        self._point = _Point(self._point.moves + 1, step, phase)

    def advance(self) -> None:
        """Says that the main thread gets on where it is; each rank as often as it likes."""
        self._point = self._point._replace(signs=self._point.signs + 1)

    def _judge(self) -> None:
        beat, before = 0, time.monotonic()
        while not self._is_over.wait(self._beat_s):
            beat, now = beat + 1, time.monotonic()
            self._grow_older(now - before)
            self._own, before = self._heartbeat(beat), now
            if sentence := self._verdict(now):
                _end(sentence)

    def _grow_older(self, elapsed_s: float) -> None:
        point = self._point
        if point is self._seen:
            # A process that was stopped, or a machine that slept, has lost nothing.
            self._age_s += min(elapsed_s, 2 * self._beat_s)
        else:
            self._seen, self._age_s, self._since = point, 0.0, _wall_clock()

    def _heartbeat(self, beat: int) -> Heartbeat:
        place, waits = main_thread_place()
        return Heartbeat(
            rank=self._rank,
            host=self._host,
            pid=os.getpid(),
            beat=beat,
            moves=self._seen.moves,
            step=self._seen.step,
            phase=self._seen.phase,
            age_s=self._age_s,
            since=self._since,
            place=place,
            waits=waits,
        )

    def _verdict(self, now: float) -> str:
        own, view = self._own, self._view
        if own.age_s < self._timeout_s:
            return ""
        if now - self._answered > self._timeout_s / 2:
            return f"{stay(own)}, and {self._folder}, where the ranks leave their heartbeats, gives no answer"
        if view is None:
            return ""
        ranks = sorted([*view, Sighting(rank=own.rank, heartbeat=own, silent_s=0.0)], key=lambda sighting: sighting.rank)
        return fault(ranks, self._timeout_s)

    def _exchange(self) -> None:
        looked = float("-inf")
        while not self._is_over.is_set():
            now = time.monotonic()
            with suppress(OSError):
                write_heartbeat(self._folder, self._own)
                if self._own.age_s < self._timeout_s / 2:
                    self._view = None
                elif now - looked >= self._timeout_s / BEATS_PER_TIMEOUT:
                    # Not before: hundreds of ranks that read each other's files are a burden to the storage.
                    self._view, looked = self._peers.look(now), now
                self._answered = time.monotonic()
            self._is_over.wait(self._beat_s)


def _wall_clock() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _end(sentence: str) -> NoReturn:
    """At once: nothing that the main thread holds is waited for."""
    with suppress(OSError):
        os.write(STANDARD_ERROR, f"{STALLED_PREFIX}{sentence}\n".encode())
    os._exit(EXIT_CODE)
