"""Time, as the launcher sees it: tests put a clock of their own in its place."""

import time
from typing import Protocol


class Clock(Protocol):
    """Units: seconds."""

    def now(self) -> float:
        """Since some moment in the past; never goes back."""

    def wall(self) -> float:
        """Since 1970, as this machine believes."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


class SystemClock:
    """This machine's own."""

    def now(self) -> float:
        """Monotonic, so that a corrected clock moves no deadline."""
        return time.monotonic()

    def wall(self) -> float:
        """The time of day."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Waits; a signal's handler may end it by raising."""
        time.sleep(seconds)
