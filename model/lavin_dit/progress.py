"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere.

The plain line has one form (`PROGRESS_LINE`), so that a parent process with a terminal can draw its children's lines as bars.
"""

import logging
import os
import re
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

logger = logging.getLogger(__name__)

INTERVAL_VARIABLE = "LAVIN_PROGRESS_SECONDS"
DEFAULT_INTERVAL_S = 5.0
PROGRESS_LINE = re.compile(r"progress: (?P<name>.+?) (?P<done>\d+)/(?P<total>\d+) (?P<rate>\S+)/s eta (?P<eta>\d+)s ?(?P<note>.*)$")


def make_bars() -> Bars:
    """The one look of every bar, drawn on standard output."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Bars(*columns, console=Console(file=sys.stdout))


class Progress:
    """A context manager that tells how far `total` units of work have come.

    Units: `done` may start above 0 where work resumes; the rate counts only what this process did.
    """

    def __init__(self, name: str, total: int, *, done: int = 0, silent: bool = False) -> None:
        self.name = name
        self.total = total
        self.done = self._first = done
        self._started = self._last_line = time.monotonic()
        self._interval_s = float(os.environ.get(INTERVAL_VARIABLE, DEFAULT_INTERVAL_S))
        self._silent = silent
        self._bars = make_bars() if sys.stdout.isatty() and not silent else None

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
            self._bar = self._bars.add_task(self.name, total=self.total, completed=self.done, note="")
        return self

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Counts work done; `note` is a few words such as `loss 0.123`."""
        self.done += count
        if self._bars:
            self._bars.update(self._bar, completed=self.done, note=note)
        elif not self._silent and self._is_line_due():
            self._last_line = time.monotonic()
            logger.info(self.line(note))

    def move_to(self, done: int, *, note: str = "") -> None:
        """Says how much is done, which may be less than before where work went back."""
        self.advance(done - self.done, note=note)

    @property
    def rate(self) -> float:
        """Units a second, of what this process did."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def line(self, note: str = "") -> str:
        """The plain line for the present state; matches `PROGRESS_LINE`."""
        rate = self.rate
        eta_s = round((self.total - self.done) / rate) if rate else 0
        return f"progress: {self.name} {self.done}/{self.total} {rate:.3g}/s eta {eta_s}s {note}".rstrip()

    def _is_line_due(self) -> bool:
        return self.done >= self.total or time.monotonic() - self._last_line >= self._interval_s

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()
