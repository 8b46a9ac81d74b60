"""The one training loop: an objective, AdamW, a schedule, a moving average, checkpoints."""

import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lavin_dit.config import OptimizerConfig, TrainingSection
from lavin_dit.errors import TrainingDivergedError
from lavin_dit.progress import Progress
from lavin_dit.training.checkpoints import Checkpoints
from lavin_dit.training.history import History
from lavin_dit.training.processes import Processes

logger = logging.getLogger(__name__)

HISTORY_FILE = "history.csv"

BatchT = TypeVar("BatchT")


class Objective(nn.Module, ABC, Generic[BatchT]):
    """What is trained: a network and its loss on batches that depend on nothing but (seed, step, sample)."""

    network: nn.Module

    @abstractmethod
    def batch(self, step: int, samples: range) -> BatchT:
        """Some samples of the step's global batch; the same whatever the number of processes."""

    @abstractmethod
    def forward(self, batch: BatchT) -> dict[str, Tensor]:
        """Scalar losses, means over the batch's samples; `loss` is minimised, the others are logged."""


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then half a cosine from the peak down to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Fitted:
    """What a finished run leaves: the moving average of the weights, and the history of the losses."""

    weights: dict[str, Tensor]
    history: History


def fit(name: str, objective: Objective[Any], config: TrainingSection, processes: Processes, folder: Path) -> Fitted:
    """Trains to `config.steps`, from the newest checkpoint under `folder` where there is one.

    Raises: TrainingDivergedError naming the step; InputError where processes cannot share the batch.
    """
    trainer = _Trainer(objective, config, processes, folder)
    first = trainer.restore()
    with Progress(name, config.steps, done=first, silent=not processes.is_first) as progress:
        for step in range(first, config.steps):
            losses = trainer.update(step)
            done = step + 1
            if done % config.log_every_steps == 0 or done == config.steps:
                trainer.log(done, losses)
            if done % config.checkpoint_every_steps == 0 and done < config.steps:
                trainer.save(done)
            progress.advance(note=f"loss {float(losses['loss']):.4f}, {progress.rate * config.batch_size:.3g} samples/s")
    return Fitted(trainer.average.module.state_dict(), trainer.history)


class _Trainer:
    """The state of a run and the few things that happen to it."""

    def __init__(self, objective: Objective[Any], config: TrainingSection, processes: Processes, folder: Path) -> None:
        self.config, self.processes = config, processes
        self.samples = processes.share(config.batch_size)
        self.objective = objective.to(processes.device)
        self.model = DistributedDataParallel(objective) if processes.world_size > 1 else objective
        averaging = get_ema_multi_avg_fn(config.optimizer.ema_decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(objective.network, multi_avg_fn=averaging)
        self.optimizer = torch.optim.AdamW(
            objective.parameters(), betas=config.optimizer.betas, weight_decay=config.optimizer.weight_decay, fused=True
        )
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.history_path = folder / HISTORY_FILE

    def restore(self) -> int:
        """Takes up the newest checkpoint and returns its step; 0 where the run is new."""
        found = self.checkpoints.newest()
        step = found[0] if found else 0
        if found:
            self._take_up(found[1])
            logger.info("continuing from step %d", step)
        self.history = History(self.history_path if self.processes.is_first else None, resume_at=step)
        return step

    def update(self, step: int) -> dict[str, Tensor]:
        """One step of the optimizer on this process's share of the global batch."""
        rate = learning_rate(step, self.config.steps, self.config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses: dict[str, Tensor] = self.model(self.objective.batch(step, self.samples))
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.optimizer.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingDivergedError(f"the gradient is no longer finite at step {step}: lower optimizer.learning_rate")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.objective.network)
        return {"grad_norm": norm, **{name: value.detach() for name, value in losses.items()}}

    def log(self, step: int, losses: dict[str, Tensor]) -> None:
        """Adds the losses, averaged over all processes, to the history."""
        values = torch.stack([value.float() for value in losses.values()])
        if self.processes.world_size > 1:
            distributed.all_reduce(values)
            values /= self.processes.world_size
        self.history.add(step, dict(zip(losses, values.tolist(), strict=True)))

    def save(self, step: int) -> None:
        """Writes a checkpoint; every process waits until it is whole."""
        if self.processes.is_first:
            state = {
                "network": self.objective.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            self.checkpoints.save(step, state)
        self.processes.wait()

    def _take_up(self, state: dict[str, Any]) -> None:
        self.objective.network.load_state_dict(state["network"], strict=True)
        self.average.load_state_dict(state["average"], strict=True)
        self.optimizer.load_state_dict(state["optimizer"])
