"""When a job that has not ended is given up: too late, restarted too often, out of memory, or unable to start."""

from collections.abc import Iterable, Sequence

from components.launcher.events import Warned
from components.launcher.kinds import JobKind
from components.launcher.observation import OUT_OF_MEMORY, JobState, PodState
from components.launcher.restarts import RestartCount
from components.launcher.settings import JobSettings, Platform

IMAGE_PATIENCE_S = 300.0
"""A registry may be away for some minutes."""
HOPELESS_PATIENCE_S = 30.0
HOPELESS_REASONS = ("InvalidImageName", "ErrImageNeverPull")
HOPELESS_OF_IMAGES = ("not found", "manifest unknown", "denied", "unauthorized")
POD_SECURITY = "violates PodSecurity"
POD_SECURITY_ADVICE = "; set multi_node_shape to elastic in launcher.yaml, or apply manifests/training-operator"


class Judge:
    """Sees each look at a job. Units: moments in seconds, on one clock that never goes back."""

    def __init__(self, kind: JobKind, settings: JobSettings, platform: Platform, *, created: float) -> None:
        self._kind = kind
        self._settings = settings
        self._platform = platform
        self._created = created
        self._restarts = RestartCount()
        self._stuck_since: float | None = None
        self._hopeless_since: float | None = None

    @property
    def restarts(self) -> int:
        """Of the job's pods, all together, until the last look."""
        return self._restarts.total

    def on_time(self, now: float) -> str:
        """Why it is too late; empty where it is not. Needs no look, and so holds while the API server does not answer."""
        limit = self._platform.deadline_s
        return f"no end after {limit:g} s, which is deadline_s in launcher.yaml" if now - self._created >= limit else ""

    def on_look(self, now: float, job: JobState, pods: Sequence[PodState], warnings: Sequence[Warned]) -> str:
        """Why the job is to be given up; empty where it is not."""
        self._restarts.see(job, pods)
        return self.on_time(now) or self._on_memory(pods) or self._on_restarts() or self._on_start(now, job, pods, warnings)

    def needs_warnings(self, job: JobState, pods: Sequence[PodState]) -> bool:
        """Whether pods are missing or idle, and do not say why themselves."""
        begun = sum(pod.has_started or bool(pod.problem) for pod in pods)
        return job.phase != "queued" and begun < self._settings.min_nodes

    def _on_memory(self, pods: Iterable[PodState]) -> str:
        """The next try would need as much."""
        for pod in pods:
            if pod.last_exit and pod.last_exit.reason == OUT_OF_MEMORY:
                return f"{OUT_OF_MEMORY}: {memory_advice(pod, self._settings)}"
        return ""

    def _on_restarts(self) -> str:
        limit = self._platform.max_restarts
        if self.restarts <= limit:
            return ""
        return f"gave up after {self.restarts} restarts; max_restarts in launcher.yaml is {limit}"

    def _on_start(self, now: float, job: JobState, pods: Sequence[PodState], warnings: Sequence[Warned]) -> str:
        able = sum(pod.has_started and not pod.problem and not pod.is_lost for pod in pods)
        if job.phase == "queued" or able >= self._settings.min_nodes:
            self._stuck_since = self._hopeless_since = None
            return ""
        reason, message = self._obstacle(pods, warnings)
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        is_hopeless = self._is_hopeless(now, reason, message)
        if now - self._stuck_since < self._patience_s(reason) and not is_hopeless:
            return ""
        advice = POD_SECURITY_ADVICE if POD_SECURITY in message else ""
        return f"pods cannot start: {reason}" + (f" ({message})" if message else "") + advice

    def _is_hopeless(self, now: float, reason: str, message: str) -> bool:
        """Whether it has been so for a little while: a tag may be pushed, or a policy changed, just now."""
        is_of_image = "Image" in reason and any(words in message for words in HOPELESS_OF_IMAGES)
        if reason not in HOPELESS_REASONS and not is_of_image and POD_SECURITY not in message:
            self._hopeless_since = None
            return False
        self._hopeless_since = now if self._hopeless_since is None else self._hopeless_since
        return now - self._hopeless_since >= HOPELESS_PATIENCE_S

    def _patience_s(self, reason: str) -> float:
        limit = self._platform.start_timeout_s
        return min(limit, IMAGE_PATIENCE_S) if "Image" in reason else limit

    def _obstacle(self, pods: Sequence[PodState], warnings: Sequence[Warned]) -> tuple[str, str]:
        """A reason, and what is said of it: by a pod, else by whoever was to make it or to prepare its start."""
        for pod in pods:
            if pod.problem and not pod.is_running:
                return pod.problem, pod.problem_message
        idle = [pod.name for pod in pods if not pod.has_started]
        refused = [warned for warned in warnings if warned.is_refusal and len(pods) < self._settings.min_nodes]
        for warned in reversed([*(warned for warned in warnings if warned.about in idle), *refused]):
            return warned.reason, warned.message
        return (f"{', '.join(idle)} has not begun", "") if idle else ("none was made", f"is {self._kind.needs} running?")


def memory_advice(pod: PodState, settings: JobSettings) -> str:
    """What to do about a pod that was killed for its memory."""
    return (
        f"pod {pod.name} needs more memory than it may have; choose a smaller batch_size or model_size, more nodes, "
        f"or raise memory of accelerator {settings.accelerator} in launcher.yaml"
    )
