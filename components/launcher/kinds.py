"""The two kinds of distributed jobs, and how each names its parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MASTER = "master"


@dataclass(frozen=True)
class JobKind:
    """A kind of object that an operator turns into pods."""

    kind: str
    group: str
    version: str
    plural: str
    container: str
    """The container in which the operator starts torchrun."""
    success: str
    """The condition of a job that ended well; `Failed` is the other end of both kinds."""
    job_label: str
    """The label by which a pod names its job."""
    index_label: str
    """The label by which a pod says which replica it is."""
    has_ttl: bool
    """Whether the operator removes a finished job by itself."""
    needs: str
    """What a cluster without this kind lacks."""

    @property
    def resource(self) -> str:
        """The kind's full name among the API server's resources."""
        return f"{self.plural}.{self.group}"

    def path(self, namespace: str, name: str = "") -> str:
        """Where the API server has the jobs of a namespace, or one of them."""
        folder = f"/apis/{self.group}/{self.version}/namespaces/{namespace}/{self.plural}"
        return f"{folder}/{name}" if name else folder

    def run_policy(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a job that says whether it waits, and how long it may take."""
        spec: dict[str, Any] = body.get("spec") or {}
        if self is TRAINJOB:
            return spec
        policy: dict[str, Any] = spec.get("runPolicy") or {}
        return policy

    def place(self, pod: Mapping[str, Any]) -> tuple[int, int]:
        """Sorts the pods of a job: rank 0 is in the first. A master comes before the workers."""
        labels = pod["metadata"].get("labels") or {}
        index = labels.get(self.index_label, "")
        is_worker = labels.get("training.kubeflow.org/replica-type", MASTER) != MASTER
        return int(is_worker), int(index) if index.isdigit() else 0


PYTORCHJOB = JobKind(
    kind="PyTorchJob",
    group="kubeflow.org",
    version="v1",
    plural="pytorchjobs",
    container="pytorch",
    success="Succeeded",
    job_label="training.kubeflow.org/job-name",
    index_label="training.kubeflow.org/replica-index",
    has_ttl=True,
    needs="Kubeflow's training-operator 1.9",
)
TRAINJOB = JobKind(
    kind="TrainJob",
    group="trainer.kubeflow.org",
    version="v1alpha1",
    plural="trainjobs",
    container="node",
    success="Complete",
    job_label="jobset.sigs.k8s.io/jobset-name",
    index_label="batch.kubernetes.io/job-completion-index",
    has_ttl=False,
    needs="Kubeflow's Trainer 2.3",
)
KINDS = {"pytorchjob": PYTORCHJOB, "trainjob": TRAINJOB}
