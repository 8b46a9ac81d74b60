"""What is done about losses that explode: the step is skipped, and after too many in a row training goes back."""

import math
from collections.abc import Mapping

from lavin_dit.errors import TrainingDivergedError
from lavin_dit.running_mean import follow
from lavin_dit.training.step_report import Outcome
from lavin_dit.training_config import GuardConfig

MEAN_DECAY = 0.98
WARMUP_LOSSES = 20
"""Losses before whose number nothing is called a spike."""


class Guard:
    """Judges each step by its loss and the norm of its gradient, both equal in all processes."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._mean, self._num_losses = 0.0, 0
        self.skipped_in_a_row = 0
        self.num_rollbacks = 0

    def judge(self, loss: float, grad_norm: float) -> Outcome:
        """Whether a step may be learnt from."""
        outcome: Outcome = "learnt"
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            outcome = "not_finite"
        elif self._num_losses >= WARMUP_LOSSES and loss > self._config.spike_factor * self._mean:
            outcome = "spike"
        self.skipped_in_a_row = 0 if outcome == "learnt" else self.skipped_in_a_row + 1
        if outcome == "learnt":
            self._num_losses += 1
            self._mean = follow(self._mean, loss, count=self._num_losses, decay=MEAN_DECAY)
        return outcome

    @property
    def wants_rollback(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return self.skipped_in_a_row >= self._config.max_skips_in_a_row

    def roll_back(self, step: int) -> None:
        """Counts a way back from a step.

        Raises: TrainingDivergedError where there were too many.
        """
        if self.num_rollbacks >= self._config.max_rollbacks:
            raise TrainingDivergedError(
                f"{self.skipped_in_a_row} steps in a row up to step {step} had a loss or gradient that was not finite or exploded, after "
                f"{self.num_rollbacks} of {self._config.max_rollbacks} allowed ways back to a checkpoint: lower optimizer.learning_rate, "
                "or look at the data of these steps"
            )
        self.num_rollbacks += 1
        self.skipped_in_a_row = 0

    def state(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        return {
            "mean": self._mean,
            "num_losses": self._num_losses,
            "skipped_in_a_row": self.skipped_in_a_row,
            "num_rollbacks": self.num_rollbacks,
        }

    def take_up(self, state: Mapping[str, float]) -> None:
        """Goes on from what `state` gave."""
        self._mean, self._num_losses = float(state["mean"]), int(state["num_losses"])
        self.skipped_in_a_row, self.num_rollbacks = int(state["skipped_in_a_row"]), int(state["num_rollbacks"])
