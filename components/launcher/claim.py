"""How a job comes to be the one of a step: created, taken up from an earlier try, or put in an earlier try's place; and how it goes."""

import logging
from dataclasses import dataclass
from typing import Any

from components.entry import StepFailedError
from components.launcher.api import (
    MENDING_ERRORS,
    TEMPORARY_ERRORS,
    Api,
    ApiError,
    ConflictError,
    DeniedError,
    NoSuchPathError,
    NotFoundError,
    RefusedError,
)
from components.launcher.kinds import JobKind
from components.launcher.observation import JobState, read_job
from components.launcher.shapes import HASH_ANNOTATION, MANAGED_BY, RUN_LABEL, STEP_LABEL
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

OWNER = "Workflow"
OWN_LABELS = (*MANAGED_BY, RUN_LABEL, STEP_LABEL)
ROLE = "bind the Role lavin-launcher to this pod's service account (manifests/base/role-launcher.yaml)"
PATIENCE_S = 600.0
"""For an answer on which all else waits."""
REMOVAL_PATIENCE_S = 60.0
GONE_S, LOOK_S = 300.0, 2.0
"""A pod has 30 s to end, and a node that is lost takes minutes to be known as lost."""
ROUNDS = 5
QUOTA = "exceeded quota"

Object = dict[str, Any]


@dataclass(frozen=True)
class Claimed:
    """The job to follow. Units: `age_s` in seconds, by the server's clock."""

    job: JobState
    age_s: float
    is_adopted: bool
    """Whether an earlier try created it."""


def claim(api: Api, kind: JobKind, body: Object) -> Claimed:
    """Makes sure that there is one job of this name, and that it is this one.

    Raises: InputError where the cluster refuses it, or somebody else has the name; StepFailedError where it cannot be had in time.
    """
    name = body["metadata"]["name"]
    for _ in range(ROUNDS):
        try:
            created = read_job(kind, _create(api, kind, body))
        except ConflictError:
            existing = _find(api, kind, name)
        else:
            logger.info("job %s: created, a %s", name, kind.kind)
            return Claimed(created, 0.0, is_adopted=False)
        if existing is None:
            continue
        job = read_job(kind, existing)
        if not _is_ours(existing, body):
            raise InputError(f"{kind.kind} {name} in namespace {api.namespace} was not made by this run; look who made it, and delete it")
        if _is_as_sent(existing, body) and job.phase != "failed" and not job.is_being_deleted:
            logger.info("job %s: taken up; an earlier try of this step has created it", name)
            return Claimed(job, max(0.0, api.server_time - job.created), is_adopted=True)
        _clear(api, kind, job)
    raise StepFailedError(f"job {name}: somebody creates it again and again")


def workflow_owner(api: Api, pod: str) -> list[Object]:
    """A reference to the Argo workflow that a step's pod belongs to: the job is to go with it. None outside a workflow.

    The pod itself will not do: one try's pod may go while the next try takes the job up.
    Raises: StepFailedError where the pod cannot be read.
    """
    if not pod:
        return []
    try:
        owners = api.patiently(lambda: api.pod(pod), patience_s=PATIENCE_S)["metadata"].get("ownerReferences") or []
    except NotFoundError:
        return []
    except ApiError as error:
        raise StepFailedError(f"pod {pod} cannot be read to find its workflow ({error}); {ROLE}") from error
    return [{key: owner[key] for key in ("apiVersion", "kind", "name", "uid")} for owner in owners if owner["kind"] == OWNER]


def remove(api: Api, kind: JobKind, job: JobState, *, patience_s: float = REMOVAL_PATIENCE_S) -> str:
    """Begins to delete that very job; returns why that cannot be, or an empty text."""
    try:
        api.patiently(lambda: api.delete(kind, job.name, job.uid), patience_s=patience_s)
    except ApiError as error:
        # Where it is gone, another may be in its place.
        is_gone = isinstance(error, NotFoundError | ConflictError) and not isinstance(error, NoSuchPathError)
        return "" if is_gone else str(error)
    return ""


def find_ours(api: Api, kind: JobKind, body: Object, *, patience_s: float) -> JobState | None:
    """The job of this name that is there, where it is this run's; also one whose creation was never confirmed."""
    try:
        existing = api.patiently(lambda: api.get(kind, body["metadata"]["name"]), patience_s=patience_s)
    except ApiError:
        return None
    return read_job(kind, existing) if _is_ours(existing, body) else None


def _create(api: Api, kind: JobKind, body: Object) -> Object:
    """Raises: ConflictError where the name is taken."""
    name = body["metadata"]["name"]
    try:
        return api.patiently(lambda: api.create(kind, body), patience_s=PATIENCE_S)
    except NoSuchPathError as error:
        raise InputError(f"the cluster has no {kind.resource}; install {kind.needs}, or choose another launcher") from error
    except RefusedError as error:
        # Another time there may be room for it.
        kind_of_error = StepFailedError if QUOTA in str(error) else InputError
        raise kind_of_error(f"{kind.kind} {name} is refused by the cluster: {error}") from error
    except DeniedError as error:
        raise StepFailedError(f"{kind.kind} {name} may not be created ({error}); {ROLE}") from error
    except NotFoundError as error:
        raise InputError(f"{kind.kind} {name} cannot be created in namespace {api.namespace} ({error})") from error
    except ConflictError:
        raise
    except ApiError as error:
        raise _no_answer(name, error) from error


def _find(api: Api, kind: JobKind, name: str) -> Object | None:
    try:
        return api.patiently(lambda: api.get(kind, name), patience_s=PATIENCE_S, errors=MENDING_ERRORS)
    except TEMPORARY_ERRORS as error:
        raise _no_answer(name, error) from error
    except NotFoundError:
        return None
    except ApiError as error:
        raise _no_answer(name, error) from error


def _no_answer(name: str, error: ApiError) -> StepFailedError:
    return StepFailedError(f"job {name}: the API server does not answer for it ({error})")


def _is_ours(existing: Object, body: Object) -> bool:
    labels = existing["metadata"].get("labels") or {}
    return all(labels.get(key) == body["metadata"]["labels"][key] for key in OWN_LABELS)


def _is_as_sent(existing: Object, body: Object) -> bool:
    annotations = existing["metadata"].get("annotations") or {}
    return bool(annotations.get(HASH_ANNOTATION) == body["metadata"]["annotations"][HASH_ANNOTATION])


def _clear(api: Api, kind: JobKind, job: JobState) -> None:
    """Deletes what an earlier try left, and waits until its name and its pods are free."""
    logger.info("job %s: an earlier try's, of no use any more, makes way", job.name)
    if not job.is_being_deleted and (why := remove(api, kind, job, patience_s=PATIENCE_S)):
        raise StepFailedError(f"job {job.name}: an earlier try's, and cannot be deleted ({why})")
    end = api.clock.now() + GONE_S
    while not _is_gone(api, kind, job):
        if api.clock.now() > end:
            raise StepFailedError(
                f"job {job.name}: an earlier try's, and still not gone {GONE_S:g} s after its deletion; see what holds it"
            )
        api.clock.sleep(LOOK_S)


def _is_gone(api: Api, kind: JobKind, job: JobState) -> bool:
    """Old ranks would write to the output of the new ones, so that pods count as well."""
    if (existing := _find(api, kind, job.name)) is not None:
        return bool(existing["metadata"]["uid"] != job.uid)
    try:
        return not api.patiently(lambda: api.pods({kind.job_label: job.name}), patience_s=PATIENCE_S)
    except ApiError as error:
        raise _no_answer(job.name, error) from error
