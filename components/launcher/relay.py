"""Passes on what rank 0 writes, so that a step that watches a job reads like one that does the work."""

import logging
from collections.abc import Iterable, Iterator, Sequence

from components.entry import FAILURE_PREFIX, MISTAKE_PREFIX
from components.launcher.api import Api, ApiError
from components.launcher.kinds import JobKind
from components.launcher.local import ELASTIC_LINE, VERDICT_LINE
from components.launcher.observation import PodState
from lavin_dit.progress import PROGRESS_LINE

logger = logging.getLogger(__name__)

LINES_AT_ONCE = 1000
LINES_OF_ADOPTED = 20
CAUSES = (MISTAKE_PREFIX, FAILURE_PREFIX)


class LogRelay:
    """Follows the log of the pod with rank 0."""

    def __init__(self, api: Api, kind: JobKind, *, is_adopted: bool) -> None:
        self._api = api
        self._kind = kind
        self._lines = LINES_OF_ADOPTED if is_adopted else LINES_AT_ONCE
        self._read_until: dict[str, str] = {}
        self._is_over = False

    def pull(self, pods: Sequence[PodState]) -> str:
        """Logs what is new; returns the line in which a rank says why it ended, or an empty one.

        A log that cannot be read now can be later.
        """
        pod = next((pod for pod in pods if pod.has_started), None)
        if pod is None:
            return ""
        try:
            text = self._api.log(pod.name, self._kind.container, timestamps="true", **self._window(pod.uid))
        except ApiError:
            return ""
        lines = list(self._new(pod.uid, text))
        self._lines = LINES_AT_ONCE
        for line in _latest(self._worth_saying(lines)):
            logger.info(line)
        return next((line for line in reversed(lines) if line.startswith(CAUSES)), "")

    def _window(self, uid: str) -> dict[str, object]:
        """The server counts in whole seconds."""
        until = self._read_until.get(uid)
        since = {"sinceTime": f"{until[:19]}Z"} if until else {}
        return {"tailLines": self._lines, **since}

    def _new(self, uid: str, text: str) -> Iterator[str]:
        until = self._read_until.get(uid, "")
        for line in text.splitlines():
            time, _, content = line.partition(" ")
            moment = _comparable(time)
            if moment > until:
                self._read_until[uid] = moment
                yield content.rstrip()

    def _worth_saying(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            # After its verdict torchrun prints its own traceback, and then perhaps starts the ranks again.
            self._is_over = bool(VERDICT_LINE.match(line)) or (self._is_over and not PROGRESS_LINE.match(line))
            if line and not self._is_over and not line.startswith(CAUSES) and not ELASTIC_LINE.match(line):
                yield line


def _comparable(time: str) -> str:
    """A time of the log as a text that sorts as time does: its fraction has as many digits as the writer liked."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


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
