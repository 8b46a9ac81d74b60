"""The object that is sent for a job: a shape from a YAML file, filled in with what depends on the run."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from components.launcher.kinds import KINDS, PYTORCHJOB, JobKind
from components.launcher.settings import Accelerator, JobSettings, Platform, shapes_folder
from components.launcher.surroundings import Surroundings
from lavin_dit.errors import InputError

MANAGED_BY = {"app.kubernetes.io/managed-by": "lavin-launcher"}
RUN_LABEL = "lavin.dev/run"
STEP_LABEL = "lavin.dev/step"
PROCESSES_LABEL = "lavin.dev/processes"
"""How many ports of a pod Prometheus scrapes."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
HASH_ANNOTATION = "lavin.dev/spec-sha256"
NAME_LENGTH = 32
"""Operators append to a job's name; the result is the name of a host, which may have 63 characters."""
QUANTITY = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[A-Za-z]*)")

Object = dict[str, Any]


@dataclass(frozen=True)
class JobRequest:
    """One step's work for a job."""

    step: str
    arguments: list[str]
    """What follows `python -m components`."""
    settings: JobSettings

    @property
    def kind(self) -> JobKind:
        """The kind of job that was asked for."""
        return KINDS[self.settings.launcher]


def job_name(run_id: str, step: str) -> str:
    """The same for every try of a step in a run; a DNS-1035 label."""
    slug = re.sub(r"[^a-z0-9]+", "-", step.lower()).strip("-")
    digest = hashlib.sha256(f"{run_id}\n{step}".encode()).hexdigest()[:10]
    return f"lavin-{slug[: NAME_LENGTH - 17].rstrip('-')}-{digest}"


def job_labels(run_id: str, step: str) -> dict[str, str]:
    """By which a job, and its pods, are known as a run's."""
    return {**MANAGED_BY, RUN_LABEL: run_id, STEP_LABEL: re.sub(r"[^A-Za-z0-9.]+", "-", step).strip("-")}


def job_object(request: JobRequest, surroundings: Surroundings, platform: Platform, folder: Path | None = None) -> Object:
    """What is sent to the API server, but for the owner.

    Raises: InputError naming the shape's file, or an accelerator that the platform does not have.
    """
    settings = request.settings
    body = _shape(request, platform, shapes_folder(folder))
    fill = _fill_pytorchjob if request.kind is PYTORCHJOB else _fill_trainjob
    fill(body, _Filling(request, surroundings, _accelerator(settings, platform)))
    policy = request.kind.run_policy(body)
    # A net for when nobody follows the job; not every operator enforces it.
    policy["activeDeadlineSeconds"] = max(1, round(platform.deadline_s))
    labels = {**body["metadata"].get("labels", {}), **job_labels(surroundings.run_id, request.step)}
    if platform.queue:
        labels[QUEUE_LABEL] = platform.queue
        policy["suspend"] = True
    body["metadata"] |= {
        "name": job_name(surroundings.run_id, request.step),
        "namespace": surroundings.namespace,
        "labels": labels,
    }
    body["metadata"].setdefault("annotations", {})[HASH_ANNOTATION] = _digest(body)
    return body


@dataclass(frozen=True)
class _Filling:
    request: JobRequest
    surroundings: Surroundings
    accelerator: Accelerator

    @property
    def labels(self) -> dict[str, str]:
        return job_labels(self.surroundings.run_id, self.request.step)

    @property
    def resources(self) -> Object:
        """Of a pod: as much for each process as the accelerator says."""
        processes, device = self.request.settings.processes, self.accelerator
        memory = {"memory": times(device.memory, processes)}
        devices = {device.resource: str(processes)} if device.resource else {}
        return {"requests": {"cpu": times(device.cpu, processes), **memory, **devices}, "limits": {**memory, **devices}}

    @property
    def env(self) -> list[Object]:
        # torchrun would give every process one thread, and a warning.
        number, unit = split_quantity(self.accelerator.cpu)
        cpus = number / 1000 if unit == "m" else number
        return [{"name": "OMP_NUM_THREADS", "value": str(max(1, int(cpus)))}]

    def command(self, shape: Sequence[str]) -> list[str]:
        """torchrun is told the number of processes itself: some operators set it for jobs with a master only."""
        torchrun, *module = shape
        return [torchrun, "--nproc-per-node", str(self.request.settings.processes), *module]

    def fill_pod(self, template: Object) -> None:
        """What every pod has, of whatever kind of job."""
        processes = {PROCESSES_LABEL: str(self.request.settings.processes)}
        template["metadata"].setdefault("labels", {}).update(self.labels | processes)
        spec = template["spec"]
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **self.accelerator.node_selector}
        spec["tolerations"] = [*spec.get("tolerations", []), *map(dict, self.accelerator.tolerations)]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        volumes["workspace"]["persistentVolumeClaim"]["claimName"] = self.surroundings.volume
        volumes["shm"]["emptyDir"]["sizeLimit"] = self.accelerator.shm


def _fill_pytorchjob(body: Object, filling: _Filling) -> None:
    settings, spec = filling.request.settings, body["spec"]
    spec["nprocPerNode"] = str(settings.processes)
    if elastic := spec.get("elasticPolicy"):
        elastic |= {"minReplicas": settings.min_nodes, "maxReplicas": settings.nodes}
    replicas = spec["pytorchReplicaSpecs"]
    masters = 1 if "Master" in replicas else 0
    if settings.nodes == masters:
        del replicas["Worker"]
    else:
        replicas["Worker"]["replicas"] = settings.nodes - masters
    for replica in replicas.values():
        filling.fill_pod(replica["template"])
        container = replica["template"]["spec"]["containers"][0]
        container |= {
            "image": filling.surroundings.image,
            "command": filling.command(container["command"]),
            "args": list(filling.request.arguments),
            "resources": filling.resources,
            "env": [*container.get("env", []), *filling.env],
        }


def _fill_trainjob(body: Object, filling: _Filling) -> None:
    settings, spec = filling.request.settings, body["spec"]
    spec["trainer"] |= {
        "image": filling.surroundings.image,
        "command": filling.command(spec["trainer"]["command"]),
        "args": list(filling.request.arguments),
        "numNodes": settings.nodes,
        "numProcPerNode": settings.processes,
        "resourcesPerNode": filling.resources,
        "env": [*spec["trainer"].get("env", []), *filling.env],
    }
    (job,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    filling.fill_pod(job["template"]["spec"]["template"])


def _shape(request: JobRequest, platform: Platform, folder: Path) -> Object:
    """Plain copies all through: what an anchor of YAML repeats would otherwise be one object."""
    settings = request.settings
    is_elastic = settings.nodes > 1 and (platform.multi_node_shape == "elastic" or settings.min_nodes < settings.nodes)
    name = settings.launcher + ("-elastic" if request.kind is PYTORCHJOB and is_elastic else "")
    path = folder / f"{name}.yaml"
    try:
        shape = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as the shape of a job ({' '.join(str(error).split())})") from error
    if not isinstance(shape, dict) or shape.get("kind") != request.kind.kind:
        raise InputError(f"{path}: must be a {request.kind.kind}")
    body: Object = json.loads(json.dumps(shape))
    return body


def _accelerator(settings: JobSettings, platform: Platform) -> Accelerator:
    if settings.accelerator not in platform.accelerators:
        raise InputError(f"accelerator is {settings.accelerator}: must be one of {', '.join(platform.accelerators)}")
    return platform.accelerators[settings.accelerator]


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def split_quantity(quantity: str) -> tuple[Decimal, str]:
    """A number and its unit.

    Raises: InputError where it is not a quantity of Kubernetes.
    """
    found = QUANTITY.fullmatch(quantity)
    if found is None:
        raise InputError(f"{quantity}: must be a quantity such as 500m, 2 or 16Gi, in an accelerator of launcher.yaml")
    return Decimal(found["number"]), found["unit"]


def times(quantity: str, count: int) -> str:
    """A quantity so many times."""
    number, unit = split_quantity(quantity)
    product = number * count
    return f"{product.normalize():f}{unit}"
