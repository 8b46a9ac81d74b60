"""What a person sees of a local run: the steps' own lines, drawn as bars on a terminal, without KFP's noise around them."""

import re
import sys
from collections.abc import Callable
from io import TextIOBase
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.progress import TaskID

from components.entry import CAUSES, PASSING_CAUSES
from lavin_dit.progress import PROGRESS_LINE, make_bars
from lavin_dit.training.step_line import FIGURES_LINE

INDENT = " " * 4
"""KFP puts this before every line of a step."""
STEP_LINE = re.compile(r"step (?P<name>\w+): (?P<event>started|finished|already done).*")


class Relay(TextIOBase):
    """A standard output for KFP: everything goes to a log file, a step's own lines go on to the person.

    After the run, `step` is the last step that started, and `cause` the line in which it said why it failed, or "".
    """

    def __init__(self, log: Path) -> None:
        self.step = ""
        self.cause = ""
        self._is_in_step = False
        self._rest = ""
        self._log = log.open("a", encoding="utf-8")
        self._screen: Screen = Bars() if sys.stdout.isatty() else Lines()

    def __enter__(self) -> Self:
        self._screen.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._screen.stop()
        self._log.close()

    def write(self, text: str) -> int:
        """Takes text as it comes, in pieces of lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.write(f"{line}\n")
            self._take(line)
        self._log.flush()
        return len(text)

    def _take(self, line: str) -> None:
        content = line.removeprefix(INDENT).rstrip()
        if content.startswith(CAUSES + PASSING_CAUSES):
            self.cause = content
        elif found := STEP_LINE.fullmatch(content):
            self.step, self._is_in_step = found["name"], found["event"] == "started"
            self._screen.show(content)
        elif not line.startswith(INDENT):
            self._is_in_step = False
        elif self._is_in_step and content:
            self._screen.show(content)


class Lines:
    """Plain lines, where nobody watches."""

    def start(self) -> None:
        """Remembers where to write: standard output is about to be KFP's."""
        self._write: Callable[[str], int] = sys.stdout.write
        self._flush = sys.stdout.flush

    def show(self, line: str) -> None:
        """Writes a line at once."""
        self._write(f"{line}\n")
        self._flush()

    def stop(self) -> None:
        """Nothing to put away."""


class Bars:
    """Bars for progress lines, plain text for the others; the figures of training steps are left to the log file."""

    def __init__(self) -> None:
        self._bars = make_bars()
        self._tasks: dict[str, TaskID] = {}

    def start(self) -> None:
        """Starts drawing."""
        self._bars.start()

    def show(self, line: str) -> None:
        """Draws a progress line as a bar; another line ends the bars above it."""
        if FIGURES_LINE.match(line):
            return
        found = PROGRESS_LINE.match(line)
        if found is None:
            self._bars.console.print(line, markup=False, highlight=False)
            return
        name, total = found["name"], int(found["total"])
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, note="")
        self._bars.update(self._tasks[name], completed=int(found["done"]), note=found["note"])

    def stop(self) -> None:
        """Leaves the bars as they stand."""
        self._bars.stop()


Screen = Lines | Bars
