"""Where the launcher runs: what the pod of a KFP step is told of its run, its image and its volume."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from components.pod_environment import IMAGE_VARIABLE, NAMESPACE_VARIABLE, POD_VARIABLE, RUN_VARIABLE, VOLUME_VARIABLE
from lavin_dit.errors import InputError

NAMES = {
    "run_id": RUN_VARIABLE,
    "image": IMAGE_VARIABLE,
    "namespace": NAMESPACE_VARIABLE,
    "volume": VOLUME_VARIABLE,
}
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the namespace of its service account."""
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Surroundings:
    """A run as its jobs need to know it."""

    run_id: str
    image: str
    """What the job's pods run: the image of the step's own pod."""
    namespace: str
    pod_name: str
    """The step's own pod, whose owner is to own the job; empty outside a cluster."""
    volume: str
    """The claim of the volume that steps and jobs share."""

    def __post_init__(self) -> None:
        if not LABEL_VALUE.fullmatch(self.run_id):
            raise InputError(
                f"{NAMES['run_id']} is {self.run_id!r}: must be at most 63 letters, digits, dots, dashes and underscores, "
                "with a letter or a digit at both ends, because it becomes a label"
            )

    @classmethod
    def from_environment(cls) -> Self:
        """What the pod's variables say.

        Raises: InputError naming every variable that is missing.
        """
        values = {field: os.environ.get(variable, "") for field, variable in NAMES.items()}
        values["namespace"] = present_namespace()
        if missing := [NAMES[field] for field, value in values.items() if not value]:
            raise InputError(
                f"{', '.join(missing)}: must be set to start a job on a cluster; the pipeline sets them in every step's pod, and "
                "elsewhere you do"
            )
        return cls(pod_name=os.environ.get(POD_VARIABLE, ""), **values)


def present_namespace() -> str:
    """The namespace to work in, as the variable, the service account or KUBECONFIG says; empty where none does."""
    if namespace := os.environ.get(NAMES["namespace"]):
        return namespace
    if NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    # The Kubernetes client takes a second to import.
    from components.launcher.api import namespace_of_kubeconfig

    return namespace_of_kubeconfig()
