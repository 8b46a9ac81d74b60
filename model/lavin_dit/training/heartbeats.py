"""What the ranks of a run tell each other of where they are, through small files, and who is at fault when they get no further."""

import os
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from pydantic import BaseModel, ConfigDict, ValidationError

SILENT_SHARE = 0.3
"""Of the timeout: a file that has not changed for so long is one of a process that is stopped or lost."""
MOST_NAMED = 8


class Heartbeat(BaseModel):
    """What a rank says of itself. Units: `age_s` in seconds, by its own clock, since it entered its phase or last got on there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    host: str
    pid: int
    beat: int
    moves: int
    """Phases entered so far: the same for all ranks at the same point of the run."""
    step: int
    phase: str
    age_s: float
    since: str
    """When it entered its phase, by the clock on its wall."""
    place: str
    """The line of code where its main thread is."""
    waits: bool
    """Whether that is in a collective."""


class Sighting(BaseModel):
    """One rank as another sees it. Units: `silent_s` in seconds, by the observer's clock, for which nothing new came."""

    model_config = ConfigDict(frozen=True)

    rank: int
    heartbeat: Heartbeat | None
    silent_s: float


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Written beside and renamed: a reader sees this one or the one before."""
    beside = folder / f".rank-{heartbeat.rank}.{heartbeat.pid}"
    beside.write_text(heartbeat.model_dump_json() + "\n", encoding="utf-8")
    beside.replace(heartbeat_file(folder, heartbeat.rank))


def heartbeat_file(folder: Path, rank: int) -> Path:
    """Where a rank's heartbeat lies."""
    return folder / f"rank-{rank}.json"


class Peers:
    """Looks at the other ranks' files. Clocks of different nodes are never compared: what counts is whether a file changes."""

    def __init__(self, folder: Path, ranks: Iterable[int]) -> None:
        self._folder = folder
        self._seen: dict[int, tuple[Heartbeat | None, float]] = {}
        self._ranks = tuple(ranks)

    def look(self, now: float) -> list[Sighting]:
        """Units: `now` in seconds, on a clock of this process that never goes back."""
        return [self._look_at(rank, now) for rank in self._ranks]

    def _look_at(self, rank: int, now: float) -> Sighting:
        heartbeat = _read(heartbeat_file(self._folder, rank))
        before, changed = self._seen.get(rank, (None, now))
        if heartbeat != before:
            changed = now
        self._seen[rank] = (heartbeat, changed)
        return Sighting(rank=rank, heartbeat=heartbeat, silent_s=now - changed)


def _read(path: Path) -> Heartbeat | None:
    with suppress(OSError, ValidationError):
        return Heartbeat.model_validate_json(path.read_bytes())
    return None


def fault(sightings: Sequence[Sighting], timeout_s: float) -> str:
    """Who holds the others up, in one sentence; empty where it is too early to say."""
    silent = [sighting for sighting in sightings if sighting.silent_s >= SILENT_SHARE * timeout_s]
    heartbeats = [sighting.heartbeat for sighting in sightings if sighting.heartbeat and sighting not in silent]
    if silent:
        return _sentence([_silence(sighting) for sighting in silent], heartbeats)
    if len(heartbeats) < len(sightings):
        return ""
    fewest = min(heartbeat.moves for heartbeat in heartbeats)
    last = [heartbeat for heartbeat in heartbeats if heartbeat.moves == fewest]
    if any(heartbeat.age_s < timeout_s for heartbeat in last):
        # Who waits for one that is slow, and still within its time, waits on.
        return ""
    others = [heartbeat for heartbeat in heartbeats if heartbeat.moves > fewest]
    if not others and len(last) > 1:
        others = [heartbeat for heartbeat in last if heartbeat.waits]
        last = [heartbeat for heartbeat in last if not heartbeat.waits]
        if not last or not others:
            return _of_all(heartbeats)
    return _sentence([stay(heartbeat) for heartbeat in last], others)


def stay(heartbeat: Heartbeat) -> str:
    """How long a rank has been where it is."""
    where = f"{heartbeat.phase} of step {heartbeat.step} for {heartbeat.age_s:.0f} s, since {heartbeat.since}"
    return f"{_name(heartbeat)} has been in {where} ({heartbeat.place})"


def _silence(sighting: Sighting) -> str:
    said = sighting.heartbeat
    if said is None:
        return f"rank {sighting.rank} has left no sign of life"
    seen = f"last seen in {said.phase} of step {said.step}, which it entered at {said.since}"
    return f"{_name(said)} has given no sign of life for {sighting.silent_s:.0f} s, {seen} (stopped, or its node is lost)"


def _of_all(heartbeats: Sequence[Heartbeat]) -> str:
    first = heartbeats[0]
    where = f"{first.phase} of step {first.step} for {first.age_s:.0f} s, since {first.since}"
    return f"all {len(heartbeats)} ranks have been in {where} ({first.place}), none behind the others: the network or a device hangs"


def _sentence(culprits: Sequence[str], others: Sequence[Heartbeat]) -> str:
    named = [*culprits[:MOST_NAMED], *([f"and {len(culprits) - MOST_NAMED} more"] if len(culprits) > MOST_NAMED else [])]
    if not others:
        return "; ".join(named)
    numbers = [str(heartbeat.rank) for heartbeat in others]
    listed = ", ".join(numbers[:MOST_NAMED]) + (f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else "")
    waiting = f"ranks {listed} wait" if len(numbers) > 1 else f"rank {listed} waits"
    phases = sorted({heartbeat.phase for heartbeat in others})
    return "; ".join([*named, f"{waiting} in {' and '.join(phases)}"])


def _name(heartbeat: Heartbeat) -> str:
    return f"rank {heartbeat.rank} (process {heartbeat.pid} on {heartbeat.host})"


def main_thread_place() -> tuple[str, bool]:
    """The line of this project, or else of any code, where the main thread is, and whether it is in a collective."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    frames = list(_outwards(frame))
    if not frames:
        return "nowhere", False
    ours = next((frame for frame in frames if frame.f_globals.get("__name__", "").startswith("lavin_dit.")), frames[0])
    place = f"{os.path.basename(ours.f_code.co_filename)}:{ours.f_lineno} in {ours.f_code.co_name}"  # noqa: PTH119
    return place, any(_is_collective(frame) for frame in frames)


def _outwards(frame: FrameType | None) -> Iterable[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_collective(frame: FrameType) -> bool:
    # DDP and FSDP wait for gradients inside of the backward pass.
    return "/torch/distributed/" in frame.f_code.co_filename or frame.f_code.co_name == "_engine_run_backward"
