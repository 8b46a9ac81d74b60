"""A mistake is not tried again: Argo starts a failed step anew without asking why, and the second try ends at once with the same line.

A note beside the run holds the line for a few minutes: longer than the retries of a step take, shorter than a person needs to mend
the mistake and press Retry.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.folders import read_json, write_json
from lavin_dit.errors import InputError, TrainingDivergedError

REMEMBERED_S = 300.0
KINDS = {kind.__name__: kind for kind in (InputError, TrainingDivergedError)}


@contextmanager
def refused_once(note: Path) -> Iterator[None]:
    """Remembers a mistake made inside, and repeats one that is remembered instead of going inside.

    Raises: InputError or TrainingDivergedError, as it was told before.
    """
    _repeat(note)
    try:
        yield
    except tuple(KINDS.values()) as error:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"kind": type(error).__name__, "line": str(error), "time": time.time()})
        raise
    note.unlink(missing_ok=True)


def _repeat(note: Path) -> None:
    if not note.is_file():
        return
    told = read_json(note)
    left_s = told["time"] + REMEMBERED_S - time.time()
    if 0 < left_s <= REMEMBERED_S:
        raise KINDS[told["kind"]](f"{told['line']} (not tried again for another {left_s:.0f} s)")
