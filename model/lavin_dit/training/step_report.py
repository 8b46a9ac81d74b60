"""What one training step came to, as one process saw it."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["learnt", "not_finite", "spike"]


@dataclass(frozen=True)
class StepReport:
    """The figures of a step. Units: seconds; samples, tokens and floating-point operations of the global batch."""

    step: int
    """Steps done, this one included."""
    losses: dict[str, float]
    """Means over the global batch: `loss`, and its parts."""
    grad_norm: float
    learning_rate: float
    samples: int
    tokens: int
    flops: float
    """Forward and backward."""
    data_wait_s: float
    """This process's wait for its share of the batch."""
    step_s: float
    """The whole step, waits for other processes included."""
    outcome: Outcome
    """Whether the step was learnt from, or why it was skipped."""
