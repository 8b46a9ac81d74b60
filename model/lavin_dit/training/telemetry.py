"""What a training run tells about itself: numbers for Prometheus from every process; log lines and files from the first."""

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from lavin_dit.training.checkpoints import Saved
from lavin_dit.training.exporter import Exporter
from lavin_dit.training.history import History
from lavin_dit.training.measures import SKIPS, Measures, resident_bytes
from lavin_dit.training.processes import Processes
from lavin_dit.training.step_line import GIB, step_line
from lavin_dit.training.step_report import StepReport
from lavin_dit.training.throughput import Rates, Throughput

logger = logging.getLogger(__name__)


class Telemetry:
    """A context manager that hears of every step, and has it known.

    `job` is `vae` or `dit`. `peak_flops` is what one device can do, in floating-point operations a second; None: unknown, and no MFU is
    told. `history` holds the rows so far. `state` is that of the checkpoint that a run continues from.
    """

    def __init__(
        self,
        job: str,
        processes: Processes,
        folder: Path,
        *,
        resume_at: int,
        peak_flops: float | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.history = History(folder if processes.is_first else None, resume_at=resume_at)
        self._processes = processes
        self._flops_a_second = peak_flops * processes.world_size if peak_flops else None
        self._measures = Measures(job, processes, folder)
        self._exporter = Exporter(self._measures.registry)
        self._throughput = Throughput()
        self._interval = _Interval((state or {}).get("told"))
        last = state or (self.history.rows[-1] if self.history.rows else {})
        self._skipped: dict[str, int] = {reason: last.get("skipped_steps", {}).get(reason, 0) for reason in SKIPS}
        self._rollbacks: int = last.get("rollbacks", 0)
        self._checkpoint_step: int | None = resume_at or None
        # A bar on a terminal has the numbers that matter, and lines would tear it.
        self._speaks = processes.is_first and not sys.stdout.isatty()

    def __enter__(self) -> Self:
        self._exporter.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exporter.__exit__(kind, error, trace)

    def step(self, report: StepReport) -> None:
        """Takes note of a step, skipped ones included."""
        self._rates = self._throughput.add(report)
        self._interval.add(report)
        if report.outcome != "learnt":
            self._skipped[report.outcome] += 1
        self._measures.take_step(report, self._rates, self._mfu(self._rates))

    def buckets(self, step: int, means: Mapping[str, Mapping[str, float]]) -> None:
        """Takes note of mean losses by kind ("task", "time") and name since the last call, and writes a row and a log line."""
        for kind, by_name in means.items():
            for name, value in by_name.items():
                self._measures.take_bucket(kind, name, value)
        if self._processes.is_first:
            row = self._row(step, means)
            self.history.add(row)
            if self._speaks:
                logger.info(step_line(row))
        self._interval = _Interval()

    def checkpoint_saved(self, saved: Saved) -> None:
        """Takes note of a checkpoint that is whole; may come from a thread that writes it."""
        self._checkpoint_step = saved.step
        self._measures.take_checkpoint(saved)

    def rolled_back(self, step: int, state: Mapping[str, Any]) -> None:
        """Takes note of a way back to a checkpoint and its `state`, and forgets the rows of later steps."""
        self._rollbacks += 1
        self._measures.take_rollback(step)
        self._interval = _Interval(state.get("told"))
        self.history.drop_after(step)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep: what was skipped and gone back on so far, and what the next row is to tell."""
        return self._counts() | {"told": self._interval.learnt()}

    def _counts(self) -> dict[str, Any]:
        return {"skipped_steps": dict(self._skipped), "rollbacks": self._rollbacks}

    def _mfu(self, rates: Rates) -> float | None:
        return rates.flops / self._flops_a_second if self._flops_a_second and rates.flops else None

    def _row(self, step: int, means: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        told, device = self._interval.told, self._processes.device
        return {
            "step": step,
            "time": time.time(),
            "losses": dict(told.losses) if told.outcome == "learnt" else {},
            "task_losses": dict(means.get("task", {})),
            "time_losses": dict(means.get("time", {})),
            "grad_norm": told.grad_norm,
            "learning_rate": told.learning_rate,
            "samples_per_second": self._rates.samples,
            "tokens_per_second": self._rates.tokens,
            "mfu": self._mfu(self._rates),
            "step_s": self._interval.mean_step_s,
            "data_wait_s": self._interval.mean_data_wait_s,
            **self._counts(),
            "last_checkpoint_step": self._checkpoint_step,
            "memory_gib": resident_bytes() / GIB,
            "device_memory_gib": torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None,
            "world_size": self._processes.world_size,
        }


class _Interval:
    """The steps since the last row; `told` is the last of them that was learnt from, or the last of all where none was.

    It may begin with what `learnt` gave before a restart.
    """

    told: StepReport

    def __init__(self, learnt: Mapping[str, Any] | None = None) -> None:
        self._count, self._has_learnt = 0, learnt is not None
        if learnt is not None:
            self.told = StepReport(**learnt)
        self._step_s = self._data_wait_s = 0.0

    def add(self, report: StepReport) -> None:
        self._count += 1
        self._step_s += report.step_s
        self._data_wait_s += report.data_wait_s
        is_learnt = report.outcome == "learnt"
        if is_learnt or not self._has_learnt:
            self.told = report
        self._has_learnt = self._has_learnt or is_learnt

    def learnt(self) -> dict[str, Any] | None:
        """The last step that was learnt from, as JSON can hold it; None where there was none."""
        return asdict(self.told) if self._has_learnt else None

    @property
    def mean_step_s(self) -> float:
        return self._step_s / self._count

    @property
    def mean_data_wait_s(self) -> float:
        return self._data_wait_s / self._count
