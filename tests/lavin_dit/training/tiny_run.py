"""A small training run for tests, to be started under torchrun or alone: `tiny_run.py FOLDER '{"execution": {...}, "steps": 12}'`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DIT_PRESETS
from lavin_dit.training.fit import fit
from lavin_dit.training.objective import Cost, Losses, Objective, Tally
from lavin_dit.training.processes import join_processes
from lavin_dit.training_config import CheckpointConfig, ExecutionConfig, GuardConfig, OptimizerConfig, TrainingSection

EXECUTION: dict[str, Any] = {
    "micro_batch": None,
    "precision": "float32",
    "sharding": "none",
    "cpu_offload": False,
    "activation_checkpointing": "none",
    "compile": False,
}
CHECKPOINTS: dict[str, Any] = {"every_steps": 4, "keep_last": 2, "keep_every_steps": None, "keep_best": False, "location": None}
GUARD: dict[str, Any] = {"spike_factor": 10.0, "max_skips_in_a_row": 3, "max_rollbacks": 1, "stall_timeout_s": 120.0}
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, final_learning_rate=1e-3, warmup_steps=2, betas=(0.9, 0.95), weight_decay=0.01, max_grad_norm=1.0, ema_decay=0.8
)


def section(
    *,
    execution: dict[str, Any] | None = None,
    checkpoints: dict[str, Any] | None = None,
    guard: dict[str, Any] | None = None,
    **changed: Any,
) -> TrainingSection:
    """A whole section, changed where asked."""
    settings: dict[str, Any] = {"seed": 0, "steps": 12, "batch_size": 6, "initial_weights": None, "frozen": (), "loading": None}
    return TrainingSection(
        optimizer=OPTIMIZER,
        execution=ExecutionConfig(**EXECUTION | (execution or {})),
        checkpoints=CheckpointConfig(**CHECKPOINTS | (checkpoints or {})),
        guard=GuardConfig(**GUARD | (guard or {})),
        **{"log_every_steps": 1} | settings | changed,
    )


class Episode(Objective[tuple[Tensor, Tensor, Tensor]]):
    """The tiny J-DiT learns to answer with one more than the mean of its prompt; the prompt is dropped for every other sample."""

    network: JDit

    def __init__(self, *, step_s: float = 0.0, device: torch.device | None = None) -> None:
        super().__init__()
        self._device = device or torch.device("cpu")
        self.network = JDit(DIT_PRESETS["tiny"])
        self.network.initialise(torch.Generator().manual_seed(0))
        self._step_s = step_s

    def batch(self, step: int, samples: range) -> tuple[Tensor, Tensor, Tensor]:
        time.sleep(self._step_s)
        randoms = [torch.Generator().manual_seed(1000 * step + sample) for sample in samples]
        answers = torch.stack([torch.randn(16, 1, 4, 4, generator=random) for random in randoms])
        prompts = torch.stack([torch.randn(16, 3, 4, 4, generator=random) for random in randoms])
        times = torch.stack([torch.rand((), generator=random) for random in randoms])
        return answers.to(self._device), prompts.to(self._device), times.to(self._device)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        answers, prompts, times = batch
        wanted = 1.0 + prompts.mean(dim=2, keepdim=True)
        errors = [(self.network(answers, shown, times).float() - wanted).square() for shown in (prompts, prompts[:, :, :2])]
        loss = torch.stack([error.mean() for error in errors]).mean()
        per_sample = errors[0].detach().flatten(1).mean(dim=1)
        tally = Tally(("all",), per_sample.sum()[None], loss.new_full((1,), float(len(per_sample))))
        return Losses(loss, {"half": loss.detach() / 2}, {"task": tally})

    def cost(self, batch: tuple[Tensor, Tensor, Tensor]) -> Cost:
        return Cost(tokens=4 * 4 * len(batch[0]), flops=1e6 * len(batch[0]))


def main() -> None:
    folder, changed = Path(sys.argv[1]), json.loads(sys.argv[2])
    step_s = changed.pop("step_s", 0.0)
    torch.set_num_threads(1)
    with join_processes() as processes:
        if processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "starts").open("a") as starts:
                starts.write(f"{processes.world_size}\n")
        processes.wait()
        fitted = fit("dit", Episode(step_s=step_s, device=processes.device), section(**changed), processes, folder)
        if processes.is_first:
            save_file(fitted.weights, folder / "weights.safetensors")


if __name__ == "__main__":
    main()
