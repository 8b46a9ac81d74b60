"""Why a job failed: a rank's own sentence where there is one, else what the operator, the pods and the events say."""

import logging
from collections.abc import Iterable, Sequence

from components.entry import CAUSES
from components.launcher.api import Api, ApiError
from components.launcher.events import Warned, warnings_about
from components.launcher.judge import memory_advice
from components.launcher.kinds import JobKind
from components.launcher.local import ELASTIC_LINE, VERDICT_LINE
from components.launcher.observation import OUT_OF_MEMORY, JobState, PodState
from components.launcher.settings import JobSettings

logger = logging.getLogger(__name__)

TAIL = 200
LAST_LINES = 20
MOST_EVENTS = 3
ECHOES = ("Error", "OOMKilled", "BackOff", "PyTorchJobRestarting")
"""Reasons of events that repeat what the pods themselves say."""


class Evidence:
    """Reads logs and events. What cannot be read is left out: it would only have explained."""

    def __init__(self, api: Api, kind: JobKind) -> None:
        self._api = api
        self._kind = kind

    def warnings(self, job: JobState) -> list[Warned]:
        """Of the job and its pods."""
        try:
            return warnings_about(job, self._api.warnings())
        except ApiError:
            return []

    def tail(self, pod: PodState) -> list[str]:
        """The last lines of the container that ended badly, be it the present one or the one before."""
        before = {} if pod.is_down or not pod.restarts else {"previous": "true"}
        try:
            text = self._api.log(pod.name, self._kind.container, tailLines=TAIL, **before)
        except ApiError:
            return []
        return [line for line in map(str.rstrip, text.splitlines()) if line]

    def cause(self, pods: Iterable[PodState]) -> str:
        """The last line in which a rank says why it ended, rank 0's before others'; empty where none does."""
        lines = (line for pod in pods if pod.last_exit for line in reversed(self.tail(pod)))
        return next((line for line in lines if line.startswith(CAUSES)), "")

    def show_last_lines(self, pods: Iterable[PodState]) -> None:
        """Logs what the pod that ended first wrote last."""
        for pod in sorted((pod for pod in pods if pod.last_exit), key=_end):
            if lines := _own(self.tail(pod))[-LAST_LINES:]:
                logger.info("last lines of pod %s:", pod.name)
                for line in lines:
                    logger.info("  %s", line)
                return


def failure_sentence(job: JobState, pods: Sequence[PodState], warnings: Iterable[Warned], settings: JobSettings) -> str:
    """All that is known of a job that failed, in one sentence."""
    failed = sorted((pod for pod in pods if pod.last_exit), key=_end)
    killed = [pod for pod in failed if pod.last_exit and pod.last_exit.reason == OUT_OF_MEMORY]
    parts = [f"job {job.name} failed: {job.message.rstrip('.')} ({job.reason})"]
    parts += [pod.ended for pod in failed]
    parts += [memory_advice(pod, settings) for pod in killed[:1]]
    told = [f"{warned.reason}: {warned.message}" for warned in warnings if warned.reason not in ECHOES]
    return "; ".join([*parts, *told[-MOST_EVENTS:]])


def _end(pod: PodState) -> tuple[bool, str]:
    """Sorts by when a pod ended; the first to end made the others end."""
    finished = pod.last_exit.finished_at if pod.last_exit else ""
    return not finished, finished


def _own(lines: list[str]) -> list[str]:
    """Without what torchrun adds, where that leaves any."""
    verdict = next((number for number, line in enumerate(lines) if VERDICT_LINE.match(line)), len(lines))
    return [line for line in lines[:verdict] if not ELASTIC_LINE.match(line)] or lines
