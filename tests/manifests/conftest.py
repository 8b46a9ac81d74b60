"""The overlays as kubectl renders them, the jobs that the launcher makes of their shapes, and every pod template in either."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from components.launcher.settings import JobSettings, load_platform
from components.launcher.shapes import JobRequest, job_object
from components.launcher.surroundings import Surroundings

MANIFESTS = Path(__file__).parents[2] / "manifests"
NAMESPACES = {"dev": "lavin", "prod": "lavin", "standalone": "kubeflow"}

Document = dict[str, Any]


class PodTemplate(NamedTuple):
    """Where a pod template was found, and what its pods get."""

    where: str
    labels: dict[str, str]
    spec: Document


class Overlay(NamedTuple):
    """An environment: its objects in the order in which they are applied."""

    name: str
    text: str
    objects: list[Document]

    @property
    def namespace(self) -> str:
        """Where all of it lies."""
        return NAMESPACES[self.name]

    def of(self, kind: str) -> dict[str, Document]:
        """Its objects of a kind, by name."""
        return {item["metadata"]["name"]: item for item in self.objects if item["kind"] == kind}

    def launcher_files(self) -> dict[str, str]:
        """The files that a step finds under /etc/lavin/launcher."""
        files: dict[str, str] = self.of("ConfigMap")["lavin-launcher"]["data"]
        return files


def _render(folder: Path) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _overlay(name: str) -> Overlay:
    text = _render(MANIFESTS / "overlays" / name)
    return Overlay(name, text, list(yaml.safe_load_all(text)))


@pytest.fixture(params=sorted(NAMESPACES))
def overlay(request: pytest.FixtureRequest) -> Overlay:
    """Each overlay in turn."""
    return _overlay(request.param)


@pytest.fixture
def prod() -> Overlay:
    """The overlay for GPUs."""
    return _overlay("prod")


@pytest.fixture
def standalone() -> Overlay:
    """The overlay for KFP's own namespace."""
    return _overlay("standalone")


@pytest.fixture
def launcher_folder(overlay: Overlay, tmp_path: Path) -> Path:
    """What a step finds under /etc/lavin/launcher."""
    for name, text in overlay.launcher_files().items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def jobs(overlay: Overlay, launcher_folder: Path) -> list[Document]:
    """The jobs that the launcher makes of an overlay's shapes: every kind and size, on every accelerator."""
    surroundings = Surroundings(
        run_id="run-1", image="reg/lavin-pipelines:1", namespace=overlay.namespace, pod_name="", volume="lavin-workspace"
    )
    platform, sizes = load_platform(launcher_folder), [("pytorchjob", 1, 1), ("pytorchjob", 3, 3), ("pytorchjob", 3, 2), ("trainjob", 2, 2)]
    made = []
    for accelerator in platform.accelerators:
        for launcher, nodes, min_nodes in sizes:
            settings = JobSettings(launcher=launcher, nodes=nodes, min_nodes=min_nodes, processes=8, accelerator=accelerator)
            made.append(job_object(JobRequest("train_dit", ["train_dit"], settings), surroundings, platform, launcher_folder))
    return made


@pytest.fixture
def render() -> Callable[[Path], str]:
    """What `kubectl apply -k` sends for a folder."""
    return _render


@pytest.fixture
def pod_templates() -> Callable[[Any], list[PodTemplate]]:
    """Every pod template at any depth of an object."""
    return lambda node: list(_pod_templates(node, f"{node['kind']}/{node['metadata']['name']}"))


def _pod_templates(node: Any, where: str) -> Iterator[PodTemplate]:
    # Whatever has a spec with containers; a bare pod is one, too.
    if isinstance(node, dict):
        spec = node.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            yield PodTemplate(where, node.get("metadata", {}).get("labels") or {}, spec)
        for key, value in node.items():
            yield from _pod_templates(value, f"{where}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _pod_templates(value, f"{where}[{number}]")
