"""How fast training went lately, and what of the devices it used."""

import time
from collections import deque
from dataclasses import dataclass

from lavin_dit.training.step_report import StepReport

WINDOW_STEPS = 20


@dataclass(frozen=True)
class Rates:
    """Means by the clock, over all processes. Units: a second."""

    samples: float
    tokens: float
    flops: float


class Throughput:
    """The work of the last steps, and the time since the first of them began."""

    def __init__(self) -> None:
        self._done: deque[tuple[float, StepReport]] = deque(maxlen=WINDOW_STEPS)

    def add(self, report: StepReport) -> Rates:
        """Takes a step that has just ended into account."""
        now = time.monotonic()
        self._done.append((now - report.step_s, report))
        elapsed = max(now - self._done[0][0], 1e-9)
        return Rates(*(sum(getattr(done, name) for _, done in self._done) / elapsed for name in ("samples", "tokens", "flops")))
