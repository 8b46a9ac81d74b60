"""Passes on what rank 0 writes, so that a step that watches a job reads like one that does the work."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from components.entry import CAUSES
from components.launcher.api import Api, ApiError
from components.launcher.kinds import JobKind
from components.launcher.local import ELASTIC_LINE, VERDICT_LINE
from components.launcher.observation import PodState, seconds
from lavin_dit.progress import PROGRESS_LINE

logger = logging.getLogger(__name__)

LINES_AT_ONCE = 1000
LINES_OF_ADOPTED = 20


@dataclass
class _Cursor:
    """How far one pod's log has been read. Units: `moment` in seconds since 1970, by the clock of the pod's node."""

    moment: float = 0.0
    seen_then: int = 0
    """Lines of that very moment that have been read."""

    def take(self, entries: Sequence[tuple[float, str]]) -> list[str]:
        """The lines that are new. The server is asked for whole seconds, and so gives some again; standard output and error arrive
        through two pipes, so that lines of one reading need not be in order."""
        old, lines = self.seen_then, []
        for moment, line in entries:
            if moment == self.moment and old:
                old -= 1
            elif moment >= self.moment:
                lines.append(line)
        newest = max((moment for moment, _ in entries), default=0.0)
        if newest >= self.moment:
            self.moment, self.seen_then = newest, sum(moment == newest for moment, _ in entries)
        return lines


class LogRelay:
    """Follows the log of the pod with rank 0."""

    def __init__(self, api: Api, kind: JobKind, *, is_adopted: bool) -> None:
        self._api = api
        self._kind = kind
        self._lines = LINES_OF_ADOPTED if is_adopted else LINES_AT_ONCE
        self._cursors: dict[str, _Cursor] = {}
        self._is_over = False

    def pull(self, pods: Sequence[PodState]) -> str:
        """Logs what is new; returns the line in which a rank says why it ended, or an empty one.

        A log that cannot be read now can be later.
        """
        pod = next((pod for pod in pods if pod.has_started), None)
        if pod is None:
            return ""
        cursor = self._cursors.setdefault(pod.uid, _Cursor())
        try:
            text = self._api.log(pod.name, self._kind.container, timestamps="true", **self._window(cursor))
        except ApiError:
            return ""
        lines = cursor.take(_stamped(text))
        self._lines = LINES_AT_ONCE
        for line in _latest(self._worth_saying(lines)):
            logger.info(line)
        return next((line for line in reversed(lines) if line.startswith(CAUSES)), "")

    def _window(self, cursor: _Cursor) -> dict[str, object]:
        since = datetime.fromtimestamp(int(cursor.moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"tailLines": self._lines, **({"sinceTime": since} if cursor.moment else {})}

    def _worth_saying(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            # After its verdict torchrun prints its own traceback, and then perhaps starts the ranks again.
            self._is_over = bool(VERDICT_LINE.match(line)) or (self._is_over and not PROGRESS_LINE.match(line))
            if line and not self._is_over and not line.startswith(CAUSES) and not ELASTIC_LINE.match(line):
                yield line


def _stamped(text: str) -> list[tuple[float, str]]:
    entries = []
    for entry in text.splitlines():
        stamp, _, line = entry.partition(" ")
        try:
            entries.append((seconds(stamp), line.rstrip()))
        except ValueError:
            # Not a line of the container, but what the server says of a log that is gone.
            continue
    return entries


def _latest(lines: Iterable[str]) -> Iterator[str]:
    """Of progress lines that follow each other, the last."""
    held = ""
    for line in lines:
        if PROGRESS_LINE.match(line):
            held = line
            continue
        if held:
            yield held
        held = ""
        yield line
    if held:
        yield held
