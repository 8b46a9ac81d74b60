"""Starts a training step in several processes of this machine, under torchrun, and speaks for them."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from components.entry import CAUSES, PASSING_CAUSES, STOPPED, StepFailedError, raise_cause

logger = logging.getLogger(__name__)

FORWARDED = (signal.SIGTERM, signal.SIGINT)
ELASTIC_LINE = re.compile(r"^[IWE]\d{4} .*torch/distributed/")
VERDICT_LINE = re.compile(r"^E\d{4} .*torch/distributed/elastic.*failed \(exitcode")
GRACE_S = 120
"""What the processes have for a checkpoint after SIGTERM; torchrun kills them then."""


def run_under_torchrun(step: str, arguments: Sequence[str], *, processes: int) -> None:
    """Runs `python -m components <arguments>` in `processes` processes, relays their lines, and ends as they end.

    SIGTERM and SIGINT reach torchrun, which stops every process before this function ends; training saves its state first.
    Raises: InputError, StepFailedError or StoppedError with the sentence of the process that ended first.
    """
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--shutdown-timeout",
        str(GRACE_S),
        "-m",
        "components",
        *arguments,
    ]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(processes)) as torchrun,
        _forwarding(torchrun) as received,
    ):
        assert torchrun.stdout is not None
        cause = _relay(torchrun.stdout)
    if received:
        _end_as_asked(received[0], cause)
    if torchrun.returncode:
        _raise(step, cause)


def _environment(processes: int) -> dict[str, str]:
    # torchrun would give every process one thread, and a warning.
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


@contextmanager
def _forwarding(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        # A second one would make torchrun leave its processes behind while they save.
        if number not in received:
            process.send_signal(number)
        received.append(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield received
        process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _relay(lines: Iterable[str]) -> str:
    """Passes the processes' lines on, without torchrun's own, and returns the first that tells why one failed."""
    cause, is_over = "", False
    for line in map(str.rstrip, lines):
        # After its verdict torchrun prints only its own traceback.
        is_over = is_over or bool(VERDICT_LINE.match(line))
        if line.startswith(CAUSES + PASSING_CAUSES):
            cause = cause or line
        elif line and not is_over and not ELASTIC_LINE.match(line):
            logger.info(line)
    return cause


def _end_as_asked(number: int, cause: str) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if cause:
        raise_cause(cause)
    sys.exit(STOPPED)


def _raise(step: str, cause: str) -> NoReturn:
    if cause:
        raise_cause(cause)
    raise StepFailedError(f"{step}: one of its processes ended with an unexpected error; its last lines are above")
