"""What the launcher is told of where it runs, and how it comes to a cluster."""

import subprocess
import sys

import pytest
import yaml

from components.launcher.api import connect
from components.launcher.surroundings import Surroundings
from lavin_dit.errors import InputError

VARIABLES = {
    "LAVIN_RUN_ID": "0c0b1e2a-7d9f-4f0e-9a55-0a4e5e6f7a8b",
    "LAVIN_IMAGE": "registry/lavin@sha256:1",
    "LAVIN_NAMESPACE": "kubeflow",
    "LAVIN_POD_NAME": "step-pod",
    "LAVIN_VOLUME": "claim",
}


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    return monkeypatch


def test_a_steps_pod_says_all(environment):
    assert Surroundings.from_environment() == Surroundings(
        run_id=VARIABLES["LAVIN_RUN_ID"], image="registry/lavin@sha256:1", namespace="kubeflow", pod_name="step-pod", volume="claim"
    )


def test_every_variable_that_is_missing_is_named(environment):
    environment.delenv("LAVIN_IMAGE")
    environment.setenv("LAVIN_VOLUME", "")
    with pytest.raises(InputError, match=r"^LAVIN_IMAGE, LAVIN_VOLUME: must be set to start a job on a cluster"):
        Surroundings.from_environment()


def test_the_pod_may_be_unknown(environment):
    environment.delenv("LAVIN_POD_NAME")
    assert Surroundings.from_environment().pod_name == ""


@pytest.mark.parametrize("run_id", ["run 1", "-run", "x" * 64, "läuft"])
def test_a_run_id_that_is_no_label_is_refused(run_id, environment):
    environment.setenv("LAVIN_RUN_ID", run_id)
    with pytest.raises(InputError, match=r"LAVIN_RUN_ID is .* because it becomes a label"):
        Surroundings.from_environment()


def test_no_cluster_is_told_in_one_line(environment, tmp_path):
    with pytest.raises(InputError, match=r"^no cluster: ") as raised:
        connect()
    assert "\n" not in str(raised.value)
    (tmp_path / "broken").write_text("apiVersion: [")
    environment.setenv("KUBECONFIG", str(tmp_path / "broken"))
    with pytest.raises(InputError, match=r"^no cluster: "):
        connect()


def test_kubeconfig_is_heard_and_its_token_sent(environment, tmp_path, api, cluster):
    from components.launcher.api import Api

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": api._client.configuration.host}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    environment.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    environment.setenv("KUBECONFIG", str(tmp_path / "config"))
    client = connect()
    assert Api(client, "lavin", cluster.clock).warnings() == []
    assert cluster.tokens[-1] == "Bearer secret"
    client.rest_client.pool_manager.clear()


def test_the_command_line_starts_without_the_kubernetes_client():
    program = "import sys, pipelines.cli, components.execution; assert 'kubernetes' not in sys.modules, 'slow'"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
