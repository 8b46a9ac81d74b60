"""What a job and its pods say of themselves, read from the objects as the API server gives them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from components.launcher.kinds import JobKind

Phase = Literal["waiting", "queued", "running", "succeeded", "failed"]

START_PROBLEMS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
OUT_OF_MEMORY = "OOMKilled"


@dataclass(frozen=True)
class JobState:
    """One look at a job. Units: `created` in seconds since 1970, by the server's clock."""

    name: str
    uid: str
    phase: Phase
    reason: str
    """Of the condition that ended the job; empty before."""
    message: str
    restarted_at: str
    """When the operator last said that it starts pods again; empty where it does not say so now."""
    created: float
    is_being_deleted: bool

    @property
    def is_over(self) -> bool:
        """Whether the operator will do nothing more for it."""
        return self.phase in ("succeeded", "failed")


@dataclass(frozen=True)
class Exit:
    """How a container ended; without a code, how its pod did."""

    code: int | None
    reason: str
    finished_at: str


@dataclass(frozen=True)
class PodState:
    """One look at a pod of a job."""

    name: str
    uid: str
    place: tuple[int, int]
    """Which replica it is; rank 0 is in the first."""
    is_running: bool
    """Whether its container runs now."""
    has_started: bool
    """Whether its container runs, or has ever run."""
    is_lost: bool
    """Whether it has failed as a pod, or is being removed."""
    restarts: int
    """How often its container was started again in this pod."""
    last_exit: Exit | None
    """Of the container's present or last life, where that ended badly."""
    is_down: bool
    """Whether its container has ended badly, and has not begun again."""
    problem: str
    """Why it does not start: a reason of Kubernetes; empty where it starts, or nothing is said."""
    problem_message: str

    @property
    def ended(self) -> str:
        """How its container ended, for people."""
        if self.last_exit is None:
            return f"pod {self.name} failed"
        if self.last_exit.code is None:
            return f"pod {self.name} failed ({self.last_exit.reason})"
        return f"pod {self.name} ended with exit code {self.last_exit.code} ({self.last_exit.reason})"


def read_job(kind: JobKind, body: Mapping[str, Any]) -> JobState:
    """Where both ends are written down, the bad one counts."""
    conditions = {entry["type"]: entry for entry in (body.get("status") or {}).get("conditions") or [] if entry["status"] == "True"}
    metadata = body["metadata"]
    phase: Phase = "waiting"
    if "Failed" in conditions:
        phase = "failed"
    elif kind.success in conditions:
        phase = "succeeded"
    elif kind.run_policy(body).get("suspend"):
        phase = "queued"
    elif "Running" in conditions:
        phase = "running"
    end = conditions.get("Failed" if phase == "failed" else kind.success) or {}
    return JobState(
        name=metadata["name"],
        uid=metadata["uid"],
        phase=phase,
        reason=end.get("reason", ""),
        message=end.get("message", ""),
        restarted_at=(conditions.get("Restarting") or {}).get("lastTransitionTime", ""),
        created=seconds(metadata["creationTimestamp"]),
        is_being_deleted="deletionTimestamp" in metadata,
    )


def read_pods(kind: JobKind, bodies: list[dict[str, Any]], job_uid: str) -> list[PodState]:
    """A job's pods, rank 0's first; what an earlier job of the same name left behind is passed over."""
    return sorted(
        (_read_pod(kind, body) for body in bodies if not _is_of_another(kind, body, job_uid)), key=lambda pod: (pod.place, pod.name)
    )


def _is_of_another(kind: JobKind, body: Mapping[str, Any], job_uid: str) -> bool:
    owners = body["metadata"].get("ownerReferences") or []
    return any(owner["kind"] == kind.kind and owner["uid"] != job_uid for owner in owners)


def _read_pod(kind: JobKind, body: Mapping[str, Any]) -> PodState:
    metadata, status = body["metadata"], body.get("status") or {}
    container: dict[str, Any] = next((entry for entry in status.get("containerStatuses") or [] if entry["name"] == kind.container), {})
    state, before = container.get("state") or {}, container.get("lastState") or {}
    ended = _bad_exit(state) or _bad_exit(before) or _pod_exit(status)
    problem, message = next(_problems(status), ("", ""))
    return PodState(
        name=metadata["name"],
        uid=metadata["uid"],
        place=kind.place(body),
        is_running="running" in state,
        has_started="running" in state or "terminated" in state or bool(before) or status.get("phase") in ("Succeeded", "Failed"),
        is_lost=status.get("phase") == "Failed" or "deletionTimestamp" in metadata,
        restarts=container.get("restartCount", 0),
        last_exit=ended,
        is_down=ended is not None and "running" not in state,
        problem=problem,
        problem_message=message,
    )


def _bad_exit(state: Mapping[str, Any]) -> Exit | None:
    ended = state.get("terminated")
    if not ended or ended["exitCode"] == 0:
        return None
    return Exit(ended["exitCode"], ended.get("reason") or "Error", ended.get("finishedAt") or "")


def _pod_exit(status: Mapping[str, Any]) -> Exit | None:
    """A pod that was evicted, for example, says so itself."""
    if status.get("phase") != "Failed":
        return None
    said = ": ".join(part for part in (status.get("reason"), status.get("message")) if part)
    return Exit(None, said or "it says nothing of why", "")


def _problems(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in START_PROBLEMS:
            yield waiting["reason"], waiting.get("message") or ""
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield condition.get("reason") or "Unschedulable", condition.get("message") or ""


def seconds(time: str) -> float:
    """A time as Kubernetes writes it. Units: seconds since 1970."""
    moment = datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
