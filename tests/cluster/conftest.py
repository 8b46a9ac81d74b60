"""A namespace of our own on the cluster that KUBECONFIG names, with overlays/dev in it; gone at the end, however that comes.

Run by `make test-cluster`. Environment: KUBECONFIG; IMAGE, the pipeline image, where the cluster's nodes find it; RWX_CLASS, a storage
class with ReadWriteMany, where there are several nodes; KFP_ENDPOINT, the address of KFP's API, and KFP_NAMESPACE, where it runs pipelines.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NEEDS_IMAGE = ("PersistentVolumeClaim", "Job")
CUSTOM = {"ClusterTrainingRuntime": "clustertrainingruntimes.trainer.kubeflow.org", "LocalQueue": "localqueues.kueue.x-k8s.io"}

Document = dict[str, Any]


class Kubectl:
    """kubectl in one namespace of the cluster."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """One command, however it ends."""
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """One command that has to succeed."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def list(self, kind: str, selector: str = "") -> list[Document]:
        """Objects of a kind."""
        items: list[Document] = json.loads(self("get", kind, "--selector", selector, "--output", "json"))["items"]
        return items

    def has(self, kind: str, name: str) -> bool:
        """Whether an object is there."""
        return self.run("get", kind, name).returncode == 0

    def apply(self, objects: Sequence[Document], *options: str) -> str:
        """Applies objects as `kubectl apply -k` would; unknown fields are refused."""
        return self("apply", "--validate=strict", "--filename", "-", *options, stdin=yaml.safe_dump_all(objects))

    def job_state(self, name: str) -> str:
        """How a Job is: Complete, Failed, or Running."""
        status = json.loads(self("get", "job", name, "--output", "json")).get("status", {})
        states = {condition["type"] for condition in status.get("conditions", []) if condition["status"] == "True"}
        return next((state for state in ("Complete", "Failed") if state in states), "Running")

    def succeeds(self, name: str, *, timeout_s: float) -> bool:
        """Waits for a Job's end; says whether it ended well."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (state := self.job_state(name)) != "Running":
                return state == "Complete"
            time.sleep(2)
        return False

    def story(self, job: str) -> str:
        """What a person would look at after a failure: a Job's last lines, the pods, and the newest events."""
        log = self.run("logs", f"job/{job}", "--tail=60").stdout
        pods = self.run("get", "pods", "--output", "wide").stdout
        events = self.run("get", "events", "--sort-by=.lastTimestamp").stdout
        return f"{log}\n{pods}\n" + "\n".join(events.splitlines()[-30:])


@pytest.fixture(scope="session")
def admin(request: pytest.FixtureRequest) -> Kubectl:
    """kubectl as whoever KUBECONFIG names."""
    if "cluster" not in request.config.getoption("markexpr"):
        pytest.skip("changes a cluster, so only `make test-cluster` (pytest -m cluster) runs it")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set")
    kubectl = Kubectl("default")
    kubectl("get", "namespaces")
    return kubectl


@pytest.fixture(scope="session")
def image() -> str:
    """The pipeline image."""
    if not (image := os.environ.get("IMAGE")):
        pytest.skip("IMAGE is not set: the pipeline image, where the cluster's nodes find it")
    return image


@pytest.fixture(scope="session")
def render_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Document]]:
    """The objects of an overlay, moved to a namespace."""

    def render(overlay: str, *, namespace: str) -> list[Document]:
        copy = tmp_path_factory.mktemp("manifests") / "manifests"
        shutil.copytree(ROOT / "manifests", copy)
        folder = copy / "overlays" / "test"
        folder.mkdir()
        # The same as overlays/standalone does; another namespace makes kustomize give one to everything it does not know.
        moved = {"resources": [f"../{overlay}"], "namespace": namespace, "transformers": ["../../base/cluster-scoped"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(moved))
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
        return list(yaml.safe_load_all(done.stdout))

    return render


@pytest.fixture(scope="session")
def known(admin: Kubectl) -> Callable[[list[Document]], list[Document]]:
    """Objects without the custom resources that the cluster does not have."""
    return lambda objects: [item for item in objects if item["kind"] not in CUSTOM or admin.has("crd", CUSTOM[item["kind"]])]


def _with_image(node: Any, image: str) -> Any:
    if isinstance(node, list):
        return [_with_image(item, image) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: image if key == "image" and isinstance(value, str) else _with_image(value, image) for key, value in node.items()}


@pytest.fixture(scope="session")
def with_image(image: str) -> Callable[[list[Document]], list[Document]]:
    """The same objects with every container in IMAGE."""
    return lambda objects: [_with_image(item, image) for item in objects]


@pytest.fixture(scope="session")
def installed(known: Callable[[list[Document]], list[Document]]) -> Callable[..., Any]:
    """Applies what is not there yet, and removes that, and only that, at the end."""

    @contextmanager
    def install(kubectl: Kubectl, objects: list[Document]) -> Iterator[None]:
        new = [item for item in known(objects) if not kubectl.has(item["kind"], item["metadata"]["name"])]
        try:
            kubectl.apply(new)
            yield
        finally:
            done = kubectl.run("delete", "--ignore-not-found", "--filename", "-", stdin=yaml.safe_dump_all(new), timeout_s=900)
            # A teardown that fails has to be seen: something of ours is still on the cluster.
            assert done.returncode == 0, done.stderr

    return install


@pytest.fixture(scope="session")
def shareable(admin: Kubectl) -> Callable[[Document], Document]:
    """A claim that all nodes of the cluster can mount at once; skips where nobody says how."""

    def share(claim: Document) -> Document:
        nodes = [node for node in admin.list("nodes") if not node["spec"].get("unschedulable")]
        if not (storage := os.environ.get("RWX_CLASS")):
            if len(nodes) > 1:
                pytest.skip(f"the cluster has {len(nodes)} nodes, and RWX_CLASS names no storage class that they can share")
            return claim
        return claim | {"spec": claim["spec"] | {"accessModes": ["ReadWriteMany"], "storageClassName": storage}}

    return share


@pytest.fixture(scope="session")
def dev(render_for: Callable[..., list[Document]]) -> list[Document]:
    """The objects of overlays/dev for a namespace with a name of its own."""
    suffix = f"-test-{secrets.token_hex(3)}"
    objects = render_for("dev", namespace=f"lavin{suffix}")
    for item in objects:
        # So that an installation beside this one keeps its own.
        if item["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            item["metadata"]["name"] += suffix
        if item["kind"] == "ClusterRoleBinding":
            item["roleRef"]["name"] += suffix
    return objects


@pytest.fixture(scope="session")
def kubectl(admin: Kubectl, dev: list[Document], installed: Callable[..., Any]) -> Iterator[Kubectl]:
    """kubectl in a new namespace with all of overlays/dev but its volume and what fills it."""
    (namespace,) = [item["metadata"]["name"] for item in dev if item["kind"] == "Namespace"]
    bound = Kubectl(namespace)
    with installed(bound, [item for item in dev if item["kind"] not in NEEDS_IMAGE]):
        yield bound


@pytest.fixture(scope="session")
def workspace(
    kubectl: Kubectl,
    dev: list[Document],
    shareable: Callable[[Document], Document],
    with_image: Callable[[list[Document]], list[Document]],
) -> Kubectl:
    """The same with the volume, made ready by the Job that the installation brings."""
    claim, setup = (next(item for item in dev if item["kind"] == kind) for kind in NEEDS_IMAGE)
    kubectl.apply(with_image([shareable(claim), setup]))
    assert kubectl.succeeds("workspace-setup", timeout_s=900), kubectl.story("workspace-setup")
    return kubectl


@pytest.fixture(scope="session")
def needs_kind(admin: Kubectl) -> Callable[[str], None]:
    """Skips where the cluster lacks a custom resource."""

    def needs(crd: str) -> None:
        if not admin.has("crd", crd):
            pytest.skip(f"the cluster has no {crd}")

    return needs
