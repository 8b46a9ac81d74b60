"""A small run whose first process puts a loss that is not a number into the batch after FOLDER/poison appears: `poisoned_run.py FOLDER`.

Each process leaves its id in FOLDER/rank-N.
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from lavin_dit.training.fit import fit
from lavin_dit.training.objective import Losses
from lavin_dit.training.processes import join_processes
from tests.lavin_dit.training.tiny_run import Episode, section

STEP_S = 0.05
STEPS = 100_000


class Poisoned(Episode):
    """The same, until the poison is there; it works once."""

    def __init__(self, poison: Path, *, is_first: bool) -> None:
        super().__init__()
        self._poison, self._is_first = poison, is_first

    def batch(self, step: int, samples: range) -> tuple[Tensor, Tensor, Tensor]:
        answers, prompts, times = super().batch(step, samples)
        if self._is_first and self._poison.exists():
            self._poison.unlink()
            answers = torch.full_like(answers, torch.nan)
        return answers, prompts, times

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        time.sleep(STEP_S)
        return super().forward(batch)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with join_processes() as processes:
        (folder / f"rank-{processes.rank}").write_text(str(os.getpid()))
        config = section(steps=STEPS, log_every_steps=5, checkpoints={"every_steps": 40})
        fit("dit", Poisoned(folder / "poison", is_first=processes.is_first), config, processes, folder)


if __name__ == "__main__":
    main()
