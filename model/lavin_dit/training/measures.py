"""One training process's metrics, as Prometheus reads them."""

import os
import shutil
import time
from pathlib import Path
from typing import TypeVar, get_args

import prometheus_client
import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from lavin_dit.training.checkpoints import Saved
from lavin_dit.training.processes import Processes
from lavin_dit.training.step_report import Outcome, StepReport
from lavin_dit.training.throughput import Rates

PREFIX = "lavin_training_"
SKIPS = tuple(outcome for outcome in get_args(Outcome) if outcome != "learnt")
"""Why steps are skipped."""
KINDS = {"task": "task_loss", "time": "time_loss"}
"""Kinds of buckets, and the metric of each; its label is the kind."""
STEP_SECONDS = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 300.0)
WAIT_SECONDS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
CHECKPOINT_SECONDS = (0.1, 0.5, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


class Measures:
    """Every series carries `network` (vae or dit) and `rank`.

    Losses, rates, and counts of samples are the whole run's, and so equal in all processes; times, memory and the heartbeat are this
    process's own. What is not known yet, or on this device, is absent.
    """

    def __init__(self, network: str, processes: Processes, folder: Path) -> None:
        # They would double the series, and say nothing that the start's time does not.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._whose = {"network": network, "rank": str(processes.rank)}
        self._make_learning()
        self._make_speed()
        self._make_checkpoints()
        self._own(self._gauge("world_size", "Processes of the run.")).set(processes.world_size)
        self._own(self._gauge("start_timestamp_seconds", "When this process began to train.")).set(time.time())
        self._heartbeat = self._own(self._gauge("heartbeat_timestamp_seconds", "When this process last finished a step."))
        self._heartbeat.set(time.time())
        self._watch_memory(processes.device)
        self._watch_disk(folder)

    def take_step(self, report: StepReport, rates: Rates, mfu: float | None) -> None:
        """A step has ended, with what went before it at these rates."""
        self._heartbeat.set(time.time())
        self._step.set(report.step)
        self._steps.inc()
        if report.outcome != "learnt":
            self._skipped[report.outcome].inc()
        for name, value in report.losses.items():
            if name == "loss":
                self._loss.set(value)
            else:
                self._loss_part.labels(**self._whose, part=name).set(value)
        self._gradient_norm.set(report.grad_norm)
        self._learning_rate.set(report.learning_rate)
        self._samples.inc(report.samples)
        self._tokens.inc(report.tokens)
        self._samples_per_second.set(rates.samples)
        self._tokens_per_second.set(rates.tokens)
        if mfu is not None:
            self._own(self._mfu).set(mfu)
        self._step_seconds.observe(report.step_s)
        self._data_wait.observe(report.data_wait_s)

    def take_bucket(self, kind: str, name: str, loss: float) -> None:
        """The mean loss of one bucket."""
        self._buckets[kind].labels(**self._whose, **{kind: name}).set(loss)

    def take_checkpoint(self, saved: Saved) -> None:
        """A checkpoint has just become whole."""
        self._checkpoint_seconds.observe(saved.duration_s)
        self._checkpoint_blocked.observe(saved.blocked_s)
        self._own(self._checkpoint_step).set(saved.step)
        self._own(self._checkpoint_bytes).set(saved.num_bytes)
        self._own(self._checkpoint_time).set(time.time())

    def take_rollback(self, step: int) -> None:
        """Training has gone back to a step."""
        self._heartbeat.set(time.time())
        self._rollbacks.inc()
        self._step.set(step)

    def _make_learning(self) -> None:
        self._step = self._own(self._gauge("step", "Steps done."))
        self._steps = self._own(self._counter("steps", "Steps that this process went through, skipped ones included."))
        skipped = self._counter("skipped_steps", "Steps that were not learnt from.", "reason")
        self._skipped = {reason: skipped.labels(**self._whose, reason=reason) for reason in SKIPS}
        self._rollbacks = self._own(self._counter("rollbacks", "Ways back to a checkpoint."))
        self._loss = self._own(self._gauge("loss", "Loss of the last step, over the global batch."))
        self._loss_part = self._gauge("loss_part", "A part of it.", "part")
        self._buckets = {kind: self._gauge(name, f"Loss by {kind} over the last log interval.", kind) for kind, name in KINDS.items()}
        self._gradient_norm = self._own(self._gauge("gradient_norm", "Norm of the last step's gradient before it was clipped."))
        self._learning_rate = self._own(self._gauge("learning_rate", "Learning rate of the last step."))

    def _make_speed(self) -> None:
        self._samples = self._own(self._counter("samples", "Samples of all processes."))
        self._tokens = self._own(self._counter("tokens", "Tokens of all processes."))
        self._samples_per_second = self._own(self._gauge("samples_per_second", "Samples of all processes, over the last steps."))
        self._tokens_per_second = self._own(self._gauge("tokens_per_second", "Tokens of all processes, over the last steps."))
        self._mfu = self._gauge("mfu_ratio", "The model's arithmetic over what the devices can do.")
        self._step_seconds = self._own(self._histogram("step_duration_seconds", "Whole steps, waits included.", STEP_SECONDS))
        self._data_wait = self._own(self._histogram("data_wait_seconds", "Waits for this process's share of a batch.", WAIT_SECONDS))

    def _make_checkpoints(self) -> None:
        self._checkpoint_seconds = self._own(self._histogram("checkpoint_duration_seconds", "Writing a checkpoint.", CHECKPOINT_SECONDS))
        self._checkpoint_blocked = self._own(self._histogram("checkpoint_blocked_seconds", "Training's wait for that.", WAIT_SECONDS))
        self._checkpoint_step = self._gauge("last_checkpoint_step", "Step of the newest checkpoint of this process.")
        self._checkpoint_bytes = self._gauge("last_checkpoint_bytes", "Its size.")
        self._checkpoint_time = self._gauge("last_checkpoint_timestamp_seconds", "When it became whole.")

    def _watch_memory(self, device: torch.device) -> None:
        self._own(self._gauge("resident_memory_bytes", "Of this process, on the host.")).set_function(resident_bytes)
        if device.type == "cuda":
            allocated = self._own(self._gauge("device_memory_allocated_bytes", "Of this process, on its device."))
            allocated.set_function(lambda: float(torch.cuda.memory_allocated(device)))
            peak = self._own(self._gauge("device_memory_peak_bytes", "The most that it has been."))
            peak.set_function(lambda: float(torch.cuda.max_memory_allocated(device)))

    def _watch_disk(self, folder: Path) -> None:
        # Looked at when Prometheus asks, in a thread of its own: a volume that hangs does not hold training up.
        self._own(self._gauge("disk_free_bytes", "Where the run is written.")).set_function(lambda: disk_bytes(folder)[0])
        self._own(self._gauge("disk_size_bytes", "The same disk, whole.")).set_function(lambda: disk_bytes(folder)[1])

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, words, [*self._whose, *labels], registry=self.registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, words, [*self._whose, *labels], registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, words, [*self._whose], buckets=buckets, registry=self.registry)

    def _own(self, metric: MetricT) -> MetricT:
        """This process's series, which exists from then on."""
        return metric.labels(**self._whose)


def resident_bytes() -> float:
    """What this process holds of the host's memory; NaN where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return float("nan")
    return float(int(pages) * os.sysconf("SC_PAGE_SIZE"))


def disk_bytes(folder: Path) -> tuple[float, float]:
    """Free and whole size of a folder's disk; NaN where it cannot be looked at."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return float("nan"), float("nan")
    return float(usage.free), float(usage.total)
