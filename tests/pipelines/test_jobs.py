"""`lavin jobs`, against an API server."""

import re

import pytest
import typer
import yaml
from typer.testing import CliRunner

from components.entry import StepFailedError
from components.launcher.settings import JobSettings, load_platform
from components.launcher.shapes import JobRequest, job_object
from components.launcher.surroundings import Surroundings
from lavin_dit.errors import InputError
from pipelines.jobs import jobs
from tests.components.launcher.api_server import Cluster, FakeClock, serving


@pytest.fixture
def cluster():
    return Cluster(FakeClock())


@pytest.fixture
def invoke(cluster, tmp_path, monkeypatch):
    """The command as KUBECONFIG lets a person use it."""
    with serving(cluster) as api:
        server = api._client.configuration.host
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        monkeypatch.setenv("LAVIN_NAMESPACE", "lavin")
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))

        def run(*arguments):
            # As the entry point does: errors of ours are not typer's.
            return CliRunner().invoke(app(), list(arguments), catch_exceptions=False)

        yield run


def app():
    root = typer.Typer()
    root.add_typer(jobs, name="jobs")
    return root


@pytest.fixture
def put(cluster):
    def make(run, condition, *, age=0.0, launcher="pytorchjob"):
        surroundings = Surroundings(run_id=run, image="image", namespace="lavin", pod_name="", volume="claim")
        settings = JobSettings.parse(launcher=launcher, nodes=1, min_nodes=1, processes=1, accelerator="cpu")
        body = job_object(JobRequest("train_dit", [], settings), surroundings, load_platform())
        condition = {"type": condition, "status": "True", "lastTransitionTime": "", "reason": "", "message": ""}
        return cluster.put(body | {"status": {"conditions": [condition]}}, f"{launcher}s", age=age)["metadata"]["name"]

    return make


def left(cluster):
    cluster.clock.sleep(10)
    return sorted(job["metadata"]["name"] for job in cluster.living())


def test_jobs_are_listed_with_what_tells_them_apart(invoke, put):
    old, new = put("run-1", "Failed", age=7200), put("run-2", "Running", age=90, launcher="trainjob")
    done = invoke("jobs", "list")
    assert done.exit_code == 0
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
    assert rows[0] == ["name", "kind", "run", "step", "state", "age", "leftover"]
    assert rows[1] == [old, "PyTorchJob", "run-1", "train-dit", "failed", "2h", "yes"]
    assert rows[2] == [new, "TrainJob", "run-2", "train-dit", "running", "2m"]


def test_nothing_to_show_and_nothing_to_remove_is_said(invoke):
    assert invoke("jobs", "list").stdout == "no jobs in namespace lavin\n"
    assert invoke("jobs", "gc").stdout == "nothing to remove in namespace lavin\n"


def test_gc_removes_what_has_ended(invoke, put, cluster):
    ended, running = put("run-1", "Succeeded"), put("run-2", "Running")
    assert invoke("jobs", "gc").stdout == f"removed PyTorchJob {ended} (succeeded)\n"
    assert left(cluster) == [running]


def test_a_dry_run_removes_nothing(invoke, put, cluster):
    ended = put("run-1", "Succeeded")
    assert invoke("jobs", "gc", "--dry-run").stdout == f"would remove PyTorchJob {ended} (succeeded)\n"
    assert left(cluster) == [ended]


def test_gc_of_a_run_removes_what_runs_as_well_and_nothing_of_others(invoke, put, cluster):
    put("run-1", "Running")
    other = put("run-2", "Succeeded")
    assert "(running)" in invoke("jobs", "gc", "--run", "run-1").stdout
    assert left(cluster) == [other]


def test_gc_leaves_what_is_young(invoke, put, cluster):
    put("run-1", "Failed", age=7200)
    young = put("run-2", "Failed", age=600)
    invoke("jobs", "gc", "--older-than", "1")
    assert left(cluster) == [young]


def test_no_cluster_is_one_clear_sentence(invoke, monkeypatch, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(InputError, match="no cluster: this is not a pod, and KUBECONFIG names none") as raised:
        invoke("jobs", "list")
    assert "\n" not in str(raised.value)


def test_no_rights_is_one_clear_sentence(invoke, cluster):
    cluster.denied = {("list", "pytorchjobs")}
    with pytest.raises(StepFailedError, match="does not show the jobs of namespace lavin") as raised:
        invoke("jobs", "list")
    assert "\n" not in str(raised.value)
