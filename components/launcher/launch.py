"""Starts one distributed job for a step, follows it to its end, and cleans up after it."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from components.launcher.api import Api, connect
from components.launcher.claim import claim, find_ours, remove, workflow_owner
from components.launcher.follow import Follower
from components.launcher.kinds import JobKind
from components.launcher.settings import Platform
from components.launcher.shapes import JobRequest, job_object
from components.launcher.surroundings import Surroundings

__all__ = ["JobRequest", "launch"]

logger = logging.getLogger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT)
STOP_PATIENCE_S = 10.0
"""Whoever sent the signal kills this process half a minute later."""


class StopRequest(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def launch(request: JobRequest, surroundings: Surroundings, platform: Platform, *, api: Api | None = None) -> None:
    """Returns when the job of this step in this run has succeeded; there is never a second one.

    A step that is tried again takes its job up where it still runs, and replaces one that failed. SIGTERM and SIGINT delete the job before
    this function ends as they ask.
    Raises: InputError for a user's mistake, also one that a rank tells of; StepFailedError in every other case, with the reason.
    """
    api = api or Api(connect(), surroundings.namespace)
    kind, body = request.kind, job_object(request, surroundings, platform)
    with _deleted_when_stopped(api, kind, body):
        if owners := workflow_owner(api, surroundings.pod_name):
            body["metadata"]["ownerReferences"] = owners
        claimed = claim(api, kind, body)
        Follower(api, request, platform, claimed).follow()
        logger.info("job %s: succeeded", claimed.job.name)
        # Nobody else would; a failed one stays to be read, and `lavin jobs gc` removes it.
        if not kind.has_ttl and (why := remove(api, kind, claimed.job)):
            logger.info("job %s: could not be deleted (%s); `lavin jobs gc` removes it later", claimed.job.name, why)


@contextmanager
def _deleted_when_stopped(api: Api, kind: JobKind, body: dict[str, Any]) -> Iterator[None]:
    """A signal ends what is done inside, wherever that waits, and then the job; a second signal changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        raise StopRequest(number)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    except StopRequest as stopped:
        _delete(api, kind, body)
        _end_as_asked(stopped.number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _delete(api: Api, kind: JobKind, body: dict[str, Any]) -> None:
    job = find_ours(api, kind, body, patience_s=STOP_PATIENCE_S)
    if job is None or job.is_over:
        return
    if why := remove(api, kind, job, patience_s=STOP_PATIENCE_S):
        logger.info("job %s: could not be deleted (%s); `lavin jobs gc` removes it later", job.name, why)
    else:
        logger.info("job %s: deleted, because this step was stopped", job.name)


def _end_as_asked(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
