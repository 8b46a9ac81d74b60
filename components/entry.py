"""What every entry point shares: log lines on standard output, and one clear line with the right exit code for an error."""

import ctypes
import logging
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from lavin_dit.errors import FULL_DISK, STALLED_PREFIX, InputError, StoppedError, StorageError, TrainingDivergedError

USER_MISTAKE = 2
FAILURE = 1
INTERRUPTED = 130
STOPPED = 128 + signal.SIGTERM
"""What a process that SIGTERM ends exits with: those who retry take it for a reason to."""

MISTAKE_PREFIX = "lavin: error: "
FAILURE_PREFIX = "lavin: failed: "
STOPPED_PREFIX = "lavin: stopped: "
CAUSES = (MISTAKE_PREFIX, FAILURE_PREFIX)
"""Begin the line in which a process says why it ended; the next try would end so too."""
PASSING_CAUSES = (STALLED_PREFIX, STOPPED_PREFIX)
"""Begin such a line too, where the next try may go well."""

ORPHAN_GRACE_S = 60.0
"""For a checkpoint that nobody waits for any more."""

PACKAGES = ("lavin_dit", "components", "pipelines")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


class StepFailedError(RuntimeError):
    """A step that could not do its work through no mistake of the user: one sentence, exit code 1."""


def raise_cause(line: str) -> NoReturn:
    """Says again what another process said in a line that begins with one of `CAUSES` or `PASSING_CAUSES`.

    Raises: InputError for a user's mistake, StoppedError for a run that somebody ended, StepFailedError for anything else.
    """
    if line.startswith(MISTAKE_PREFIX):
        raise InputError(line.removeprefix(MISTAKE_PREFIX))
    if line.startswith(STOPPED_PREFIX):
        raise StoppedError(line.removeprefix(STOPPED_PREFIX))
    raise StepFailedError(line.removeprefix(FAILURE_PREFIX).removeprefix(STALLED_PREFIX))


def tune_process() -> None:
    """Makes CPU training faster without changing a number; call it before torch is imported. docs/LOG.md has the figures.

    Idle OpenMP threads sleep early: spinning, they slow training many times beside another busy process. Freed memory is kept for the
    next step: glibc would give it back and fault it in again, a quarter of the time of an ST-VAE step.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def rank() -> int:
    """This process's rank under torchrun; 0 elsewhere."""
    return int(os.environ.get("RANK", "0"))


def configure_logging() -> None:
    """Sends this project's log lines, plain and flushed, to standard output; under torchrun only rank 0 speaks."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if rank() == 0 else logging.ERROR)
        logger.propagate = False


def stop_when_nobody_reads() -> None:
    """Ends this process when whoever reads its lines through a pipe is gone, even by SIGKILL: no step works on as an orphan.

    It is asked first, by SIGTERM, so that training saves its state; after `ORPHAN_GRACE_S` it ends as it is.
    """
    descriptor = sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        threading.Thread(target=_stop_without_reader, args=(descriptor,), daemon=True).start()


def _stop_without_reader(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(STOPPED)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns what a person can act on into one line on standard error and an exit code; our bugs keep their traceback."""
    try:
        yield
    except InputError as error:
        stop(f"{MISTAKE_PREFIX}{error}", USER_MISTAKE)
    except (StepFailedError, TrainingDivergedError, StorageError) as error:
        stop(f"{FAILURE_PREFIX}{error}", FAILURE)
    except StoppedError as error:
        stop(f"{STOPPED_PREFIX}{error}", STOPPED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        stop(f"{FAILURE_PREFIX}{_full_disk(error)}", FAILURE)


def _full_disk(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    return f"disk full{where} ({error.strerror}); free some space and run again, finished work is kept"


def stop(line: str, code: int) -> NoReturn:
    """Ends the process with one line on standard error."""
    # An orphan has nobody to tell.
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    sys.exit(code)
