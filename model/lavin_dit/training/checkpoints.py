"""The checkpoints of a run: written beside training, hashed, marked complete last, and read back by any number of processes."""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lavin_dit.errors import InputError, StorageError
from lavin_dit.training.agreement import Agreement, nothing
from lavin_dit.training.checkpoint_files import (
    FACTS_FILE,
    MARKER_FILE,
    CheckpointFolder,
    DamagedError,
    StoredFile,
    is_whole,
    remove_surplus,
    step_name,
    verify,
    write_durably,
    write_marker,
)
from lavin_dit.training.checkpoint_tensors import ShardWriter, Staging, allow_single_process, check_tensors, read_tensors, write_tensors
from lavin_dit.training.identity import differences
from lavin_dit.training.object_storage import ObjectStorage
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import CheckpointConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint. Units: seconds that training was held up, seconds from the copy to the last file, bytes of all files."""

    step: int
    blocked_s: float
    duration_s: float
    num_bytes: int


class Checkpoints:
    """The checkpoints of one run in one place. Every process of the run has one and makes the same calls."""

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        processes: Processes,
        *,
        identity: Mapping[str, Any],
        on_saved: Callable[[Saved], None] | None = None,
    ) -> None:
        """`folder` is the run's own, used unless the configuration names a location. `identity` is what has to be the same to continue.

        `on_saved` is called in every process, on the thread that wrote.
        Raises: InputError where the location is no place for checkpoints.
        """
        is_remote = config.location is not None and "://" in config.location
        self._remote = ObjectStorage(config.location) if config.location and is_remote else None
        self._local = CheckpointFolder(folder if config.location is None or is_remote else Path(config.location))
        self._config, self._processes, self._identity, self._on_saved = config, processes, json.loads(json.dumps(identity)), on_saved
        self._agreement = Agreement(processes, (OSError, InputError, DamagedError, StorageError))
        self._staging = Staging(processes.device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        allow_single_process()

    @property
    def place(self) -> str:
        """Where the checkpoints outlive the run."""
        return self._remote.url if self._remote else str(self._local.folder)

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, score: float, final: bool = False) -> None:
        """Copies the state and returns; it is written meanwhile. A final one is written when this returns.

        Tensors that are not sharded are the same in every process; so are the facts, which have to fit into JSON.
        Raises: OSError, StorageError: why this or the one before could not be written; those before it stay whole.
        """
        started = time.monotonic()
        self.wait()
        copies = self._staging.copy(tensors, rank=self._processes.rank, world_size=self._processes.world_size)
        described = {"step": step, "score": score if math.isfinite(score) else None, "facts": dict(facts), "identity": self._identity}
        blocked_s = time.monotonic() - started
        self._writing = self._thread.submit(self._write, step, copies, described, blocked_s)
        if final:
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises: OSError, StorageError: why it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Lets a checkpoint that is being written be finished, whatever becomes of it: before the processes part."""
        self._thread.shutdown(wait=True)
        self._writing = None

    def restore(self, tensors: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]] | None:
        """Fills the tensors from the newest whole checkpoint; its step and facts, or None for a new run, with nothing filled.

        The tensors may be laid out over any number of processes.
        Raises: InputError where the checkpoint is of a run with another identity or other tensors, or the location cannot be used;
        StorageError where object storage cannot be reached.
        """
        self.wait()
        candidates = self._candidates()
        for step, is_remote in candidates:
            try:
                return step, self._take_up(step, tensors, is_remote=is_remote)
            except DamagedError as damage:
                self._pass_over(step, damage, is_remote=is_remote)
        if candidates and self._processes.is_first:
            logger.warning("%s: no checkpoint is whole, the run begins anew", self.place)
        return None

    def _write(self, step: int, copies: dict[str, Any], described: dict[str, Any], blocked_s: float) -> None:
        started = time.monotonic()
        beside = self._local.hidden(step, "partial")
        files: list[StoredFile] = []

        def publish(shards: list[StoredFile]) -> None:
            write_durably(beside / FACTS_FILE, described)
            files.extend((*shards, StoredFile.of(beside / FACTS_FILE)))
            write_marker(beside, files)
            self._local.publish(step, beside)

        writer = ShardWriter(beside, publish, self._processes.rank)
        try:
            write_tensors(copies, writer, self._agreement.group)
        except BaseException:
            if self._processes.is_first:
                shutil.rmtree(beside, ignore_errors=True)
            raise
        if self._remote:
            self._upload(self._remote, step, writer.shard.name)
        self._agreement.on_first(self._remove_surplus)
        num_bytes = self._agreement.on_first(lambda: sum(file.num_bytes for file in files))
        if self._on_saved:
            self._on_saved(Saved(step, blocked_s, time.monotonic() - started, num_bytes))

    def _upload(self, remote: ObjectStorage, step: int, shard: str) -> None:
        """Every process its own shard, and the marker when all are there."""
        folder = self._local.path(step)
        self._agreement.on_first(lambda: remote.remove(step))
        mine = [folder / shard] if (folder / shard).exists() else []
        if self._processes.is_first:
            mine.append(folder / FACTS_FILE)
        self._agreement.of_all(lambda: remote.put(step, mine))
        self._agreement.on_first(lambda: remote.put(step, [folder / MARKER_FILE]))

    def _remove_surplus(self) -> None:
        remove_surplus(self._local, self._config)
        if self._remote:
            remove_surplus(self._remote, self._config)

    def _candidates(self) -> list[tuple[int, bool]]:
        """Steps of complete checkpoints and whether they are in object storage; the newest first, those that are here before others."""

        def look() -> list[tuple[int, bool]]:
            self._open()
            self._local.tidy()
            here = [(step, False) for step in self._local.steps()]
            there = [(step, True) for step in self._remote.steps()] if self._remote else []
            return sorted(here + there, key=lambda candidate: (-candidate[0], candidate[1]))

        return self._agreement.on_first(look)

    def _open(self) -> None:
        try:
            self._local.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if self._config.location is None:
                raise
            raise InputError(f"checkpoints.location is {self._config.location}: no folder can be made there ({error.strerror})") from error

    def _take_up(self, step: int, tensors: Mapping[str, Tensor], *, is_remote: bool) -> dict[str, Any]:
        folder, processes = self._local.path(step), self._processes
        if self._remote and is_remote:
            self._fetch(self._remote, step)
        else:
            self._agreement.of_all(lambda: verify(folder, rank=processes.rank, world_size=processes.world_size))
        described = self._agreement.on_first(lambda: self._local.facts(step))
        self._refuse_other(described["identity"])
        self._agreement.of_all(lambda: check_tensors(folder, tensors, str(folder)))
        read_tensors(folder, tensors, self._agreement.group)
        return dict(described["facts"])

    def _fetch(self, remote: ObjectStorage, step: int) -> None:
        """The first process of every node, in case nodes do not share the folder; the first of all begins, in case they do."""
        processes = self._processes

        def fetch() -> None:
            if not is_whole(self._local.path(step)):
                beside = self._local.hidden(step, f"fetched-{processes.rank}")
                remote.fetch(step, beside)
                self._local.publish(step, beside)

        self._agreement.on_first(fetch)
        self._agreement.of_all(fetch if processes.rank and processes.rank % processes.per_node == 0 else nothing)

    def _refuse_other(self, identity: Mapping[str, Any]) -> None:
        different = differences(identity, self._identity)
        if different:
            raise InputError(
                f"{self.place}: holds checkpoints of another run ({'; '.join(different)}): "
                f"put them back, or remove {self.place} to begin anew"
            )

    def _pass_over(self, step: int, damage: DamagedError, *, is_remote: bool) -> None:
        def set_aside() -> None:
            logger.warning("%s: %s is damaged (%s): going back to the checkpoint before it", self.place, step_name(step), damage)
            if self._local.path(step).exists():
                self._local.set_aside(step, "damaged")
            if self._remote and is_remote:
                self._remote.unmark(step)

        self._agreement.on_first(set_aside)
