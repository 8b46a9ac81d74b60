"""Jobs of ours that are still there, and how they are removed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.entry import StepFailedError
from components.launcher.api import Api, ApiError, DeniedError, NoSuchPathError, NotFoundError, connect
from components.launcher.claim import OWNER, remove
from components.launcher.kinds import PYTORCHJOB, TRAINJOB, JobKind
from components.launcher.observation import JobState, read_job
from components.launcher.shapes import MANAGED_BY, RUN_LABEL, STEP_LABEL
from components.launcher.surroundings import Surroundings

PATIENCE_S = 30.0


@dataclass(frozen=True)
class KnownJob:
    """A job that a launcher made. Units: `age_s` in seconds, by the server's clock."""

    kind: JobKind
    state: JobState
    run_id: str
    step: str
    age_s: float
    has_lost_owner: bool
    """Whether the workflow that started it is gone."""

    @property
    def is_leftover(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.state.is_over or self.has_lost_owner


def known_jobs(api: Api, *, run_id: str = "") -> list[KnownJob]:
    """Our jobs in the namespace, or those of one run, the oldest first.

    Raises: StepFailedError where the API server does not show them.
    """
    labels = {**MANAGED_BY, **({RUN_LABEL: run_id} if run_id else {})}
    try:
        found = [_read(api, kind, body) for kind in (PYTORCHJOB, TRAINJOB) for body in _jobs(api, kind, labels)]
    except ApiError as error:
        raise StepFailedError(f"the API server does not show the jobs of namespace {api.namespace} ({error})") from error
    return sorted(found, key=lambda job: -job.age_s)


def remove_all(api: Api, jobs: Iterable[KnownJob]) -> list[str]:
    """The names of those that are being removed.

    Raises: StepFailedError naming those that could not be.
    """
    # One name may stand for a job of each kind.
    tried = [(job.state.name, remove(api, job.kind, job.state)) for job in jobs]
    if failed := [f"job {name} could not be deleted ({why})" for name, why in tried if why]:
        raise StepFailedError("; ".join(failed))
    return [name for name, _ in tried]


def remove_jobs_of_run(run_id: str, surroundings: Surroundings, *, api: Api | None = None) -> list[str]:
    """Removes what a run that is over has left running; a job that has ended stays, for its log, until its time is up.

    Raises: InputError without a cluster; StepFailedError where the API server does not let them be removed.
    """
    api = api or Api(connect(), surroundings.namespace)
    return remove_all(api, [job for job in known_jobs(api, run_id=run_id) if not job.state.is_over])


def _jobs(api: Api, kind: JobKind, labels: dict[str, str]) -> list[dict[str, Any]]:
    try:
        return api.patiently(lambda: api.jobs(kind, labels), patience_s=PATIENCE_S)
    except DeniedError:
        # Who may see one kind only, sees that one.
        if kind is TRAINJOB:
            return []
        raise


def _read(api: Api, kind: JobKind, body: dict[str, Any]) -> KnownJob:
    state, labels = read_job(kind, body), body["metadata"].get("labels") or {}
    return KnownJob(
        kind=kind,
        state=state,
        run_id=labels.get(RUN_LABEL, ""),
        step=labels.get(STEP_LABEL, ""),
        age_s=max(0.0, api.server_time - state.created),
        has_lost_owner=_has_lost_owner(api, body),
    )


def _has_lost_owner(api: Api, body: dict[str, Any]) -> bool:
    """Where it cannot be told, the owner is taken to be there."""
    owners = [owner for owner in body["metadata"].get("ownerReferences") or [] if owner["kind"] == OWNER]
    if not owners:
        return False
    owner = owners[0]
    try:
        workflow = api.find(f"/apis/{owner['apiVersion']}/namespaces/{api.namespace}/workflows/{owner['name']}")
    except NoSuchPathError:
        return False
    except NotFoundError:
        return True
    except ApiError:
        return False
    return bool(workflow["metadata"]["uid"] != owner["uid"])
