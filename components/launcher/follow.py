"""Follows one job until it has succeeded, has failed, or is given up."""

import logging
import random
from typing import NoReturn

from components.entry import StepFailedError, raise_cause
from components.launcher.api import MENDING_ERRORS, TEMPORARY_ERRORS, Api, ApiError, DeniedError, NotFoundError, retry_after_s
from components.launcher.claim import ROLE, Claimed, remove
from components.launcher.events import Warned
from components.launcher.failure import Evidence, failure_sentence
from components.launcher.judge import Judge
from components.launcher.kinds import JobKind
from components.launcher.observation import JobState, PodState, read_job, read_pods
from components.launcher.relay import LogRelay
from components.launcher.settings import Platform
from components.launcher.shapes import JobRequest

logger = logging.getLogger(__name__)

DENIED_S = 120.0
"""A token that is being renewed, or a server that is starting, denies for a moment what it will allow."""
LONGEST_PAUSE_S = 30.0
WARNINGS_EVERY_S = 10.0
JITTER = 0.2


class Follower:
    """Follows the job that was claimed for a request."""

    def __init__(self, api: Api, request: JobRequest, platform: Platform, claimed: Claimed) -> None:
        self._api = api
        self._request = request
        self._platform = platform
        self._kind: JobKind = request.kind
        self._job: JobState = claimed.job
        self._pods: list[PodState] = []
        self._ended: dict[tuple[int, int], str] = {}
        """How the container of each replica ended last; its pod may be gone."""
        self._judge = Judge(request.kind, request.settings, platform, created=api.clock.now() - claimed.age_s)
        self._evidence = Evidence(api, request.kind)
        self._relay = LogRelay(api, request.kind, is_adopted=claimed.is_adopted)
        self._examined: set[tuple[str, int, bool]] = set()
        self._is_queued = False
        self._restarts = 0
        self._silent_since: float | None = None
        self._is_silence_told = False
        self._warned_at = float("-inf")
        self._warned: list[Warned] = []

    def follow(self) -> None:
        """Returns when the job has succeeded.

        Raises: StepFailedError in every other case, with the reason, or InputError where a rank has told of a user's mistake.
        """
        while True:
            pause = self._platform.poll_s
            try:
                self._look()
            except ApiError as error:
                pause = self._bear(error)
            else:
                self._hear_again()
                if self._is_done():
                    return
            if why := self._judge.on_time(self._api.clock.now()):
                self._give_up(why)
            # Launchers that lost the server together are not to come back together.
            self._api.clock.sleep(pause * random.uniform(1.0, 1.0 + JITTER))  # noqa: S311

    def _look(self) -> None:
        job = read_job(self._kind, self._api.get(self._kind, self._job.name))
        if job.uid != self._job.uid:
            raise NotFoundError("another of its name is there")
        self._job = job
        try:
            bodies = self._api.pods({self._kind.job_label: job.name})
        except ApiError:
            # How a job has ended does not hang on what is left of it.
            if not job.is_over:
                raise
        else:
            self._pods = read_pods(self._kind, bodies, job.uid)
        self._ended |= {pod.place: pod.ended for pod in self._pods if pod.last_exit}

    def _is_done(self) -> bool:
        cause = self._relay.pull(self._pods)
        if self._job.phase == "succeeded":
            return True
        cause = cause or self._new_cause()
        if self._job.phase == "failed":
            self._end_as_failed(cause)
        if self._job.is_being_deleted:
            self._end_as_deleted()
        if cause:
            # A mistake, or a loss that is no number any more, is the same at the next try.
            self._delete()
            raise_cause(cause)
        if why := self._judge.on_look(self._api.clock.now(), self._job, self._pods, self._warnings()):
            self._give_up(why)
        self._tell_changes()
        return False

    def _new_cause(self) -> str:
        """What a rank said in a container that has ended since the last look."""
        ended = [pod for pod in self._pods if pod.last_exit and (pod.uid, pod.restarts, pod.is_down) not in self._examined]
        self._examined |= {(pod.uid, pod.restarts, pod.is_down) for pod in ended}
        return self._evidence.cause(ended)

    def _warnings(self) -> list[Warned]:
        """Asked for now and then only: they are those of the whole namespace."""
        now = self._api.clock.now()
        if not self._judge.needs_warnings(self._job, self._pods):
            return []
        if now - self._warned_at >= WARNINGS_EVERY_S:
            self._warned_at, self._warned = now, self._evidence.warnings(self._job)
        return self._warned

    def _tell_changes(self) -> None:
        is_queued = self._job.phase == "queued"
        if is_queued and not self._is_queued:
            queue = self._platform.queue
            logger.info("job %s: %s", self._job.name, f"waits in the queue {queue}" if queue else "waits suspended")
        elif self._is_queued and not is_queued:
            logger.info("job %s: is admitted", self._job.name)
        self._is_queued = is_queued
        if self._judge.restarts > self._restarts:
            self._restarts = self._judge.restarts
            limit = self._platform.max_restarts
            logger.info("job %s: its pods were started again, %d times of at most %d", self._job.name, self._restarts, limit)

    def _give_up(self, why: str) -> NoReturn:
        """What can be known is told before the pods go."""
        ended = [f"; {words}" for _, words in sorted(self._ended.items())]
        self._evidence.show_last_lines(self._pods)
        problem = self._delete()
        left = f"; it could not be deleted ({problem}), `lavin jobs gc` removes it later" if problem else ""
        raise StepFailedError(f"{self._request.step}: job {self._job.name}: {why}{''.join(ended)}{left}")

    def _end_as_failed(self, cause: str) -> NoReturn:
        """Its pods stay to be read."""
        self._evidence.show_last_lines(self._pods)
        if cause:
            raise_cause(cause)
        sentence = failure_sentence(self._job, self._pods, self._evidence.warnings(self._job), self._request.settings)
        raise StepFailedError(f"{self._request.step}: {sentence}")

    def _end_as_deleted(self) -> NoReturn:
        raise StepFailedError(f"{self._request.step}: job {self._job.name} was deleted by somebody while it ran; run the step again")

    def _delete(self) -> str:
        return remove(self._api, self._kind, self._job)

    def _bear(self, error: ApiError) -> float:
        """Bears that there is no answer: the job goes on, and so does its deadline. Returns how long to wait. Units: seconds."""
        if isinstance(error, NotFoundError) and not isinstance(error, TEMPORARY_ERRORS):
            self._end_as_deleted()
        title, now = f"{self._request.step}: job {self._job.name}", self._api.clock.now()
        if not isinstance(error, MENDING_ERRORS):
            raise StepFailedError(f"{title} cannot be followed ({error})") from error
        if self._silent_since is None:
            # One answer that is lost is nothing to tell.
            self._silent_since = now
        elif not self._is_silence_told:
            self._is_silence_told = True
            logger.info("job %s: the API server gives no answer (%s); the job goes on", self._job.name, error)
        silent_s = now - self._silent_since
        if isinstance(error, DeniedError) and silent_s >= DENIED_S:
            raise StepFailedError(f"{title} may not be followed any more ({error}); {ROLE}") from error
        return max(self._platform.poll_s, retry_after_s(error), min(LONGEST_PAUSE_S, silent_s / 4))

    def _hear_again(self) -> None:
        if self._is_silence_told:
            logger.info("job %s: the API server answers again", self._job.name)
        self._silent_since, self._is_silence_told = None, False
