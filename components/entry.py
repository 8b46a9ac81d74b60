"""What every entry point shares: log lines on standard output, and one clear line with the right exit code for an error."""

import errno
import logging
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lavin_dit.errors import InputError, TrainingDivergedError

USER_MISTAKE = 2
FAILURE = 1
INTERRUPTED = 130

MISTAKE_PREFIX = "lavin: error: "
FAILURE_PREFIX = "lavin: failed: "

PACKAGES = ("lavin_dit", "components", "pipelines")
FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class StepFailedError(RuntimeError):
    """A step that could not do its work through no mistake of the user: one sentence, exit code 1."""


def spin_little() -> None:
    """Lets idle OpenMP threads sleep early; call it before torch is imported.

    Alone on the machine this costs nothing that can be measured; beside another busy process, threads that spin while they wait make
    training several times slower (docs/LOG.md).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


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
    """Ends this process when whoever reads its lines through a pipe is gone, even by SIGKILL: no step works on as an orphan."""
    descriptor = sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        threading.Thread(target=_stop_without_reader, args=(descriptor,), daemon=True).start()


def _stop_without_reader(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns what a person can act on into one line on standard error and an exit code; our bugs keep their traceback."""
    try:
        yield
    except InputError as error:
        stop(f"{MISTAKE_PREFIX}{error}", USER_MISTAKE)
    except (StepFailedError, TrainingDivergedError) as error:
        stop(f"{FAILURE_PREFIX}{error}", FAILURE)
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
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    sys.exit(code)
