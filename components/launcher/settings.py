"""How a step's processes run, and what a cluster offers for it. Knows nothing of Kubernetes' own objects; cheap to import."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import Field, model_validator

from components.pod_environment import LAUNCHER_FOLDER
from components.recipes import INSTALLED
from lavin_dit.config import section_to_json, validate
from lavin_dit.errors import InputError
from lavin_dit.section import Section

Launcher = Literal["local", "pytorchjob", "trainjob"]
LAUNCHERS: tuple[str, ...] = get_args(Launcher)
PLATFORM_FILE = "launcher.yaml"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class JobSettings(Section):
    """What a person asks for the processes of a training step."""

    launcher: Launcher
    nodes: Count
    """Pods of the job."""
    min_nodes: Count
    """Fewest pods that it may go on with; equal to `nodes` where its size is fixed."""
    processes: Count
    """Processes in each pod."""
    accelerator: str
    """A name among the platform's accelerators."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min_nodes > self.nodes:
            raise ValueError(f"min_nodes is {self.min_nodes}: must be at most nodes ({self.nodes})")
        if self.launcher == "local" and self.nodes > 1:
            raise ValueError(f"nodes is {self.nodes}: must be 1 with launcher local, which starts processes in the step's own pod")
        if self.launcher == "trainjob" and self.min_nodes != self.nodes:
            raise ValueError(f"min_nodes is {self.min_nodes}: must equal nodes ({self.nodes}) with launcher trainjob, which is not elastic")
        return self

    @property
    def is_on_cluster(self) -> bool:
        """Whether the processes run in a job of their own."""
        return self.launcher != "local"

    @classmethod
    def parse(cls, **values: object) -> Self:
        """Raises: InputError naming the parameter, its value and what is allowed."""
        return validate(cls, values, prefix="")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Canonical text: equal settings give equal texts."""
        return section_to_json(self)


def local_job(processes: int) -> JobSettings:
    """Some processes on this machine.

    Raises: InputError where that is no number of processes.
    """
    return JobSettings.parse(launcher="local", nodes=1, min_nodes=1, processes=processes, accelerator="cpu")


ONE_PROCESS = local_job(1)


class Accelerator(Section):
    """A kind of device, and what a pod with it asks for."""

    resource: str | None
    """The device's name among Kubernetes' resources, such as `nvidia.com/gpu`, one for each process; none for CPUs."""
    memory_gib: Annotated[float, Field(gt=0)] | None
    """Memory of one device, in GiB; none where nothing is known of it."""
    cpu: str
    """CPUs of a pod for each of its processes, as Kubernetes writes quantities."""
    memory: str
    """Memory of a pod for each of its processes, as Kubernetes writes quantities."""
    shm: str
    """Size of /dev/shm."""
    node_selector: dict[str, str]
    tolerations: tuple[dict[str, str], ...]


class Platform(Section):
    """What the administrator of a cluster decides: launcher.yaml."""

    queue: str
    """Kueue's LocalQueue; empty where jobs start at once."""
    multi_node_shape: Literal["elastic", "fixed"]
    deadline_s: Seconds
    """Longest time from a job's creation to its end."""
    start_timeout_s: Seconds
    """Longest time that a pod may be unable to start."""
    max_restarts: Annotated[int, Field(ge=0)]
    """Restarts of a job's pods, all together, after which it is given up."""
    poll_s: Seconds
    accelerators: Annotated[dict[str, Accelerator], Field(min_length=1)]


def load_platform(folder: Path | None = None) -> Platform:
    """Reads launcher.yaml of the cluster, where it is mounted, else the one that the project ships.

    Raises: InputError naming the file, the key, its value and what is allowed.
    """
    path = shapes_folder(folder) / PLATFORM_FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as the launcher's settings ({' '.join(str(error).split())})") from error
    return validate(Platform, document, prefix=f"{path}: ")


def shapes_folder(folder: Path | None = None) -> Path:
    """Where launcher.yaml and the shapes of jobs lie: as given, as mounted from the cluster, or as shipped."""
    shipped = (INSTALLED / "manifests" / "base" / "launcher", INSTALLED / "pipelines" / "launcher")
    candidates = (folder,) if folder else (LAUNCHER_FOLDER, *shipped)
    return next((path for path in candidates if (path / PLATFORM_FILE).is_file()), candidates[-1])
