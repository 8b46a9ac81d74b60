"""Counts how often the pods of a job were started again, because a real operator's backoffLimit may count nothing."""

from collections import defaultdict
from collections.abc import Iterable

from components.launcher.observation import JobState, PodState


class RestartCount:
    """Sees each look at a job; `total` is what became of it.

    A container that its pod starts again counts, and so does a pod that takes another's place. The operator's own word counts where it
    says more: a pod can come and go between two looks. What a queue stopped and started again does not count.
    """

    def __init__(self) -> None:
        self._pods: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
        self._words: set[str] = set()
        self._before = 0

    @property
    def total(self) -> int:
        """How often, until the last look."""
        return self._before + max(self._counted, len(self._words))

    @property
    def _counted(self) -> int:
        return sum(len(pods) - 1 + sum(pods.values()) for pods in self._pods.values())

    def see(self, job: JobState, pods: Iterable[PodState]) -> None:
        """Takes one look into account."""
        if job.phase == "queued":
            self._before = self.total
            self._pods.clear()
            self._words.clear()
            return
        for pod in pods:
            lives = self._pods[pod.place]
            lives[pod.uid] = max(lives.get(pod.uid, 0), pod.restarts)
        if job.restarted_at:
            self._words.add(job.restarted_at)
