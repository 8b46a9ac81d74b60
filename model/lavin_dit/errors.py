"""The exceptions whose one sentence is for the person who runs this, not for us."""

import errno

FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""What the system says where no more can be written."""
STALLED_PREFIX = "lavin: stalled: "
"""Begins the line of a process that ends where no exception can: its main thread hangs."""


class InputError(ValueError):
    """A user's mistake: names the field or file, its value, and what is allowed, in one sentence.

    Entry points print it as one line and exit with code 2. Everything else is our bug and keeps its traceback.
    """


class TrainingDivergedError(RuntimeError):
    """A loss or a gradient is no longer a finite number: names the step, and what to change.

    Entry points print it as one line and exit with code 1.
    """


class StorageError(RuntimeError):
    """Object storage that does not answer, through no mistake of the user: one sentence, exit code 1."""


class StoppedError(RuntimeError):
    """A run that somebody ended, and that continues when it is started again.

    Entry points print it as one line and exit with code 143, as a process that SIGTERM ended.
    """


class PreemptedError(StoppedError):
    """A training run that was asked to end, and has saved its state."""

    def __init__(self, step: int) -> None:
        super().__init__(f"SIGTERM after step {step}, whose state is saved: run again to continue")
        self.step = step
