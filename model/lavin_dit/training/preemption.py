"""The wish of a scheduler, or a person, that this process ends soon: SIGTERM."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """Notes SIGTERM in place of ending at once, for as long as the context lasts, so that a run can save its state first.

    Only the main thread can listen; elsewhere a signal does what it did before. One that came too late to be followed is sent again
    at the end of the context.
    """

    def __init__(self) -> None:
        self.is_made = False
        """Whether SIGTERM has come."""

    def __enter__(self) -> Self:
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._listens:
            return
        signal.signal(signal.SIGTERM, self._before)
        if self.is_made and kind is None:
            os.kill(os.getpid(), signal.SIGTERM)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_made = True
