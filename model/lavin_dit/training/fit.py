"""The one training loop: an objective, AdamW, a schedule, a moving average, checkpoints, and what happens when something breaks."""

import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lavin_dit.errors import PreemptedError, TrainingDivergedError
from lavin_dit.planning.devices import device_peak_flops
from lavin_dit.progress import Progress
from lavin_dit.training.average import MovingAverage
from lavin_dit.training.checkpoints import Checkpoints, Saved
from lavin_dit.training.feed import Feed, MicroBatch, micro_ranges
from lavin_dit.training.guard import Guard
from lavin_dit.training.history import History
from lavin_dit.training.identity import identity_of
from lavin_dit.training.objective import Objective
from lavin_dit.training.optimizing import Optimizer, learning_rate
from lavin_dit.training.preemption import StopRequest
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut
from lavin_dit.training.step_report import StepReport
from lavin_dit.training.tallies import StepTotals, Tallies
from lavin_dit.training.telemetry import Telemetry
from lavin_dit.training.watchdog import Watchdog
from lavin_dit.training_config import TrainingSection

logger = logging.getLogger(__name__)

CHECKPOINTS, HEARTBEATS = "checkpoints", "heartbeats"
"""What a run keeps in its folder until it has ended."""
JOBS = {"vae": "train ST-VAE", "dit": "train J-DiT"}


@dataclass(frozen=True)
class Fitted:
    """What a finished run leaves: the moving average of the weights, and the history of the losses."""

    weights: dict[str, Tensor]
    history: History


def fit(
    job: str,
    objective: Objective[Any],
    config: TrainingSection,
    processes: Processes,
    folder: Path,
    *,
    identity: Mapping[str, Any] | None = None,
) -> Fitted:
    """Trains to `config.steps`, from the newest checkpoint where there is one; `job` is `vae` or `dit`.

    `identity` is what must be the same for a checkpoint to be continued; without it, the parameters that decide what is learnt.

    Raises: InputError where the processes cannot share the batch, or a checkpoint belongs to another configuration;
    TrainingDivergedError naming the step; PreemptedError after SIGTERM, with the state saved.
    """
    trainer = _Trainer(objective, config, processes, folder, identity or identity_of(config))
    step = trainer.restore()
    with trainer.at_work(job, step), Progress(JOBS[job], config.steps, done=step, silent=not processes.is_first) as progress:
        while step < config.steps:
            report = trainer.advance(step)
            step = trainer.settle(report)
            progress.move_to(step, note=f"loss {report.losses['loss']:.4f}, {progress.rate * config.batch_size:.3g} samples/s")
        trainer.watchdog.at(step, "checkpoint")
        trainer.checkpoints.wait()
        return Fitted(trainer.average.state_dict(), trainer.telemetry.history)


def watch(config: TrainingSection, processes: Processes, folder: Path) -> Watchdog:
    """Ends a run that makes no progress while the context lasts: over the steps, or over what prepares their data."""
    return Watchdog(folder / HEARTBEATS, processes, config.guard.stall_timeout_s)


def forget(folder: Path) -> None:
    """Removes what a run that has ended leaves for nobody."""
    for name in (CHECKPOINTS, HEARTBEATS):
        shutil.rmtree(folder / name, ignore_errors=True)


class _Trainer:
    """The state of a run and the few things that happen to it."""

    feed: Feed[Any]
    telemetry: Telemetry
    watchdog: Watchdog
    stop_request: StopRequest

    def __init__(
        self, objective: Objective[Any], config: TrainingSection, processes: Processes, folder: Path, identity: Mapping[str, Any]
    ) -> None:
        self.config, self.processes, self.folder = config, processes, folder
        self.ranges = micro_ranges(processes, config.batch_size, config.execution.micro_batch)
        self.objective = objective
        self.laid_out = LaidOut(objective, config.execution, processes)
        self.optimizer = Optimizer(objective, config.optimizer)
        self.average = MovingAverage(objective.network, config.optimizer.ema_decay)
        self.guard = Guard(config.guard)
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, config.checkpoints, processes, identity=identity, on_saved=self._tell_saved)
        self.tallies = Tallies(processes)
        self.data_offset = 0
        """How far the data are ahead of the steps: what was passed over on ways back."""
        self.told: dict[str, Any] = {}
        """The telemetry's state at the checkpoint that the run continues from."""
        self.losses_since_checkpoint: list[float] = []
        self.must_stop = False

    def at_work(self, job: str, step: int) -> ExitStack:
        """Everything that runs beside the steps, until the stack is closed."""
        with ExitStack() as stack:
            stack.callback(self.checkpoints.close)
            self.stop_request = stack.enter_context(StopRequest())
            self.watchdog = stack.enter_context(watch(self.config, self.processes, self.folder))
            peak_flops = device_peak_flops(self.processes.device, self.config.execution.precision)
            self.telemetry = stack.enter_context(
                Telemetry(job, self.processes, self.folder, resume_at=step, peak_flops=peak_flops, state=self.told)
            )
            self.feed = stack.enter_context(Feed(self.objective, self.ranges, self.config.batch_size))
            return stack.pop_all()

    def restore(self) -> int:
        """Takes up the newest checkpoint and returns its step; 0 where the run is new."""
        found = self.checkpoints.restore(self._tensors())
        if found is None:
            return 0
        step, facts = found
        self.optimizer.take_up(int(facts["num_updates"]))
        self.average.num_updates = int(facts["num_updates"])
        self.data_offset = int(facts["data_offset"])
        self.guard.take_up(facts["guard"])
        self.objective.take_up(facts["objective"])
        # Absent from older checkpoints: the last row has the counts then.
        self.told, self.tallies = facts.get("telemetry", {}), Tallies(self.processes, facts.get("tallies"))
        self.losses_since_checkpoint = []
        logger.info("continuing from step %d", step)
        return step

    def advance(self, step: int) -> StepReport:
        """One step: every process's share of the global batch, and one update of the weights where the losses allow it."""
        started = time.monotonic()
        self.watchdog.at(step, "data")
        micro_batches = self.feed.take(step + self.data_offset, is_last=step + 1 == self.config.steps)
        data_wait_s = time.monotonic() - started
        self.watchdog.at(step, "update")
        rate = learning_rate(step, self.config.steps, self.config.optimizer)
        self.optimizer.set_rate(rate)
        totals = self._learn(micro_batches)
        grad_norm = float(self.optimizer.clip())
        means, cost, self.must_stop = totals.agree(stop=self.stop_request.is_made)
        outcome = self.guard.judge(means["loss"], grad_norm)
        if outcome == "learnt":
            self.optimizer.step()
            self.average.update()
            self.objective.observe(means)
            for tallies in totals.tallies:
                self.tallies.add(tallies)
            self.losses_since_checkpoint.append(means["loss"])
        self.optimizer.forget_gradients()
        return StepReport(
            step=step + 1,
            losses=means,
            grad_norm=grad_norm,
            learning_rate=rate,
            samples=self.config.batch_size,
            tokens=cost.tokens,
            flops=cost.flops,
            data_wait_s=data_wait_s,
            step_s=time.monotonic() - started,
            outcome=outcome,
        )

    def settle(self, report: StepReport) -> int:
        """What follows a step: telemetry, a checkpoint, an end before its time, or a way back. Returns the steps done."""
        step = report.step
        is_end = step == self.config.steps
        self.telemetry.step(report)
        if step % self.config.log_every_steps == 0 or is_end:
            self.telemetry.buckets(step, self.tallies.take())
        if self.guard.wants_rollback:
            return self._roll_back(step)
        if self.must_stop:
            self._save(step, final=True)
            raise PreemptedError(step)
        # What a skipped step follows may be what broke it, and is no state to come back to.
        if step % self.config.checkpoints.every_steps == 0 and not is_end and report.outcome == "learnt":
            self._save(step)
        return step

    def _learn(self, micro_batches: list[MicroBatch[Any]]) -> StepTotals:
        totals = StepTotals(self.processes)
        for index, micro_batch in enumerate(micro_batches):
            with self.laid_out.accumulating(is_last=index + 1 == len(micro_batches)):
                losses = self.laid_out.losses(micro_batch.batch)
                # Gradients are averaged over the processes, and the global batch's loss is a sum of weighted parts.
                (losses.total * (micro_batch.weight * self.processes.world_size)).backward()  # type: ignore[no-untyped-call]
            totals.add(micro_batch, losses, self.objective.cost(micro_batch.batch))
        self.laid_out.meet()
        return totals

    def _save(self, step: int, *, final: bool = False) -> None:
        self.watchdog.at(step, "checkpoint")
        losses, self.losses_since_checkpoint = self.losses_since_checkpoint, []
        facts = {
            "num_updates": self.optimizer.num_updates,
            "data_offset": self.data_offset,
            "guard": self.guard.state(),
            "objective": self.objective.state(),
            "telemetry": self.telemetry.state(),
            "tallies": self.tallies.state(),
        }
        self.checkpoints.save(step, self._tensors(), facts, score=sum(losses) / len(losses) if losses else float("inf"), final=final)

    def _roll_back(self, step: int) -> int:
        """Back to the newest checkpoint, and past the data that led here. Returns its step."""
        self.guard.roll_back(step)
        num_rollbacks, position = self.guard.num_rollbacks, step + self.data_offset
        self.watchdog.at(step, "checkpoint")
        self.checkpoints.wait()
        back = self.restore()
        if back == 0:
            raise TrainingDivergedError(
                f"{self.config.guard.max_skips_in_a_row} steps in a row up to step {step} had a loss or gradient that was not finite or "
                "exploded, before the first checkpoint: lower optimizer.learning_rate"
            )
        self.guard.num_rollbacks, self.guard.skipped_in_a_row = num_rollbacks, 0
        self.data_offset = position - back
        self.telemetry.rolled_back(back, self.told)
        logger.warning("step %d: too many steps in a row were skipped; going back to step %d and past their data", step, back)
        return back

    def _tensors(self) -> dict[str, Tensor]:
        network = {f"network.{name}": tensor for name, tensor in self.objective.network.state_dict().items()}
        average = {f"average.{name}": tensor for name, tensor in self.average.weights.items()}
        return network | average | self.optimizer.tensors()

    def _tell_saved(self, saved: Saved) -> None:
        self.telemetry.checkpoint_saved(saved)
