"""A step whose work a job of two pods does. The API server is our own; what the pods would run runs for real, as two agents of torchrun."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.folders import read_json
from components.launcher.settings import JobSettings, load_platform
from components.store import Store, produce
from lavin_dit.config import load_config
from lavin_dit.errors import InputError
from lavin_dit.section import Section
from tests.components.launcher.api_server import NAMESPACE, Cluster, FakeClock, serving

TINY = Path(__file__).parents[1] / "tiny.yaml"
JOB = JobSettings(launcher="pytorchjob", nodes=2, min_nodes=2, processes=1, accelerator="cpu")
FOUR = JOB.model_copy(update={"processes": 2})
LABEL = "training.kubeflow.org"


class RealClock(FakeClock):
    """A server that lives now."""

    @property
    def time(self) -> float:
        return time.monotonic()

    @time.setter
    def time(self, value: float) -> None:
        """Nobody sets it."""


class Carried:
    """An operator and a kubelet that carry a job out: every worker's command, with the variables that the operator would set."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.cluster: Cluster
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, job: dict[str, Any]) -> None:
        worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
        (container,) = worker["template"]["spec"]["containers"]
        sizes = job["spec"]["elasticPolicy"]
        injected = {
            "PET_RDZV_BACKEND": sizes["rdzvBackend"],
            "PET_RDZV_ENDPOINT": f"127.0.0.1:{self.port}",
            "PET_RDZV_ID": job["metadata"]["name"],
            "PET_NNODES": f"{sizes['minReplicas']}:{sizes['maxReplicas']}",
            "PET_MAX_RESTARTS": str(sizes["maxRestarts"]),
        }
        own = {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}
        environment = {
            **os.environ,
            **own,
            **injected,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
        }
        for index in range(worker["replicas"]):
            with self._log(index).open("wb") as log:
                command = [*container["command"], *container["args"]]
                self.workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder))

    def _log(self, index: int) -> Path:
        return self.folder / f"worker-{index}.log"

    def state(self, _age: float) -> dict[str, Any]:
        (job,) = self.cluster.jobs.values()
        if not self.workers:
            self._start(job)
        codes = [worker.poll() for worker in self.workers]
        # Of an elastic job one worker that has ended well is enough.
        reached = "Succeeded" if 0 in codes else "Failed" if any(codes) else "Running"
        conditions = [{"type": kind, "status": "True", "reason": kind, "message": f"is {kind}"} for kind in ("Created", reached)]
        return {"status": {"conditions": conditions}}

    def pods(self, _age: float, job: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._pod(job, index, worker.poll()) for index, worker in enumerate(self.workers)]

    def _pod(self, job: dict[str, Any], index: int, code: int | None) -> dict[str, Any]:
        name = job["metadata"]["name"]
        labels = {f"{LABEL}/job-name": name, f"{LABEL}/replica-type": "worker", f"{LABEL}/replica-index": str(index)}
        owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": name, "uid": job["metadata"]["uid"]}
        ended = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}
        status = {"name": "pytorch", "state": {"running": {}} if code is None else ended, "restartCount": 0, "ready": code is None}
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        metadata = {
            "name": f"{name}-worker-{index}",
            "namespace": NAMESPACE,
            "uid": f"uid-{index}",
            "labels": labels,
            "ownerReferences": [owner],
        }
        return {"metadata": metadata, "status": {"phase": phase, "containerStatuses": [status]}}

    def events(self, _age: float, _job: dict[str, Any]) -> list[dict[str, Any]]:
        return []

    def log(self, pod: str, _age: float, **_query: bool) -> list[str]:
        lines = self._log(int(pod.rpartition("-")[2])).read_text().splitlines()
        return [f"2026-11-24T10:00:00.{number:09d}Z {line}" for number, line in enumerate(lines)]


@pytest.fixture
def carried(tmp_path: Path, unused_port: int) -> Iterator[Carried]:
    carried = Carried(tmp_path, unused_port)
    yield carried
    for worker in carried.workers:
        worker.kill()
        worker.wait()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def on_cluster(carried: Carried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The environment of a step's pod, with an API server behind it."""
    cluster = Cluster(RealClock(), scene=carried)
    carried.cluster = cluster
    with serving(cluster) as api:
        server = {"name": "here", "cluster": {"server": api._client.configuration.host}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": NAMESPACE}}
        document = {"apiVersion": "v1", "kind": "Config", "clusters": [server], "contexts": [context], "current-context": "here"}
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document | {"users": [{"name": "me", "user": {"token": "t"}}]}))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        values = {"RUN_ID": "7f", "IMAGE": "registry/lavin@sha256:1", "NAMESPACE": NAMESPACE, "VOLUME": "lavin-workspace", "POD_NAME": ""}
        for name, value in values.items():
            monkeypatch.setenv(f"LAVIN_{name}", value)
        quick = load_platform().model_copy(update={"poll_s": 0.2})
        monkeypatch.setattr("components.launcher.settings.load_platform", lambda: quick)
        yield cluster


def section(step: str, *overrides: str) -> Section:
    chosen: Section = getattr(load_config(TINY, overrides), step)
    return chosen


def train(workspace: Path, *overrides: str, job: JobSettings = JOB) -> Path:
    store = Store(workspace / "store", "code")
    shards = produce("prepare", section("prepare"), {"raw": workspace / "raw"}, output="shards", store=store, known={"raw": "none"})
    return produce("train_vae", section("train_vae", *overrides), {"shards": shards}, output="vae", store=store, job=job)


@pytest.mark.usefixtures("on_cluster")
def test_two_pods_train_one_network_and_the_step_has_its_output(tmp_path: Path, carried: Carried, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "components")
    vae = train(tmp_path)
    assert (vae / "weights.safetensors").is_file()
    assert read_json(vae / "config.json")["steps"] == 4
    assert [worker.wait(30) for worker in carried.workers] == [0, 0]
    assert len([message for message in caplog.messages if re.search(r"ST-VAE 4/4 .* loss [\d.]+, [\d.e+]+ samples/s$", message)]) == 1


def test_two_pods_leave_the_weights_that_one_process_leaves(tmp_path: Path, on_cluster: Cluster) -> None:
    launched = train(tmp_path)
    store = Store(tmp_path / "alone", "code")
    shards = produce("prepare", section("prepare"), {"raw": tmp_path / "raw"}, output="shards", store=store, known={"raw": "none"})
    alone = produce("train_vae", section("train_vae"), {"shards": shards}, output="vae", store=store)
    one, two = (read_json(folder / "metrics.json")["psnr"] for folder in (alone, launched))
    assert two == pytest.approx(one, rel=1e-4)
    assert len([request for request in on_cluster.requests if request[0] == "POST" and "pytorchjobs" in request[1]]) == 1


@pytest.mark.usefixtures("on_cluster")
def test_what_a_rank_refuses_is_the_steps_own_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batch_size is 3: must be at least the number of processes \(4\)"):
        train(tmp_path, "train_vae.batch_size=3", job=FOUR)
    assert list((tmp_path / "store").glob("vae-*")) == []
