"""What becomes of files that are refused: the first one stops the run, or each is left out with its reason."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavin_dit.errors import InputError

OnBad = Literal["stop", "skip"]
UNREADABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Skipped:
    """A file, folder or pair that was left out, and the sentence that says why."""

    label: str
    reason: str


class Refusals:
    """Passes on the first refusal (`stop`), or collects all of them (`skip`)."""

    def __init__(self, on_bad: OnBad = "stop") -> None:
        self._on_bad = on_bad
        self._skipped: dict[Skipped, None] = {}

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out so far, in the order in which it was met; what is met twice stands once."""
        return tuple(self._skipped)

    @contextmanager
    def about(self, label: str | Path) -> Iterator[None]:
        """A block that may refuse what `label` names; when it is skipped, the rest of the block is left out.

        Raises: InputError from the block, where bad files stop the run.
        """
        try:
            yield
        except InputError as error:
            if self._on_bad == "stop":
                raise
            self._skipped[Skipped(readable(label), str(error))] = None


def readable(name: str | Path) -> str:
    """A name on one line of valid text: line ends, other control characters and bytes that are no UTF-8 are escaped.

    Letters of any script stay, and so do the invisible signs that emoji and right-to-left names need.
    """
    return UNREADABLE.sub(lambda found: ascii(found[0])[1:-1], str(name))
