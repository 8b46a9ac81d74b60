"""Training in two pods through the launcher, as a step of the pipeline runs it: in the cluster, with the step's rights and nothing else."""

import re
import time
from pathlib import Path

import pytest

from lavin_dit.progress import PROGRESS_LINE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

TINY = (Path(__file__).parents[1] / "tiny.yaml").read_text()
STEPS, CHECKPOINT_EVERY = 4000, 200
INDEX_LABELS = ("training.kubeflow.org/replica-index", "batch.kubernetes.io/job-completion-index")
PREPARE = """
from pathlib import Path
from components.entry import clear_errors, configure_logging
from components.execution import execute
from lavin_dit.config import load_config

configure_logging()
with clear_errors():
    config = load_config(Path("/etc/lavin/test/tiny.yaml"))
    execute("prepare", config.prepare, {"raw": Path("/tmp/none")}, {"shards": Path("/workspace/store/test-shards")})
"""
TRAIN = """
import sys
from pathlib import Path
from components.entry import clear_errors, configure_logging
from components.execution import execute
from components.launcher.settings import JobSettings
from lavin_dit.config import load_config

launcher, *overrides = sys.argv[1:]
configure_logging()
with clear_errors():
    config = load_config(Path("/etc/lavin/test/tiny.yaml"), overrides)
    job = JobSettings.parse(launcher=launcher, nodes=2, min_nodes=2, processes=1, accelerator="cpu")
    vae = Path("/workspace/store") / f"test-vae-{launcher}"
    execute("train_vae", config.train_vae, {"shards": Path("/workspace/store/test-shards")}, {"vae": vae}, job=job)
    assert any(vae.glob("*.safetensors")), sorted(vae.iterdir())
"""


def step_job(name, image, namespace, program, *arguments):
    """A Job whose pod is what KFP makes of a step: our service account, our user, our mounts and variables."""
    field = {"LAVIN_POD_NAME": "metadata.name", "LAVIN_NAMESPACE": "metadata.namespace"}
    value = {"LAVIN_IMAGE": image, "LAVIN_RUN_ID": name, "LAVIN_VOLUME": "lavin-workspace", "HOME": "/tmp"}  # noqa: S108
    environment = [{"name": key, "value": text} for key, text in value.items()]
    environment += [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in field.items()]
    mounts = {"workspace": "/workspace", "launcher": "/etc/lavin/launcher", "test": "/etc/lavin/test", "tmp": "/tmp"}  # noqa: S108
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", program, *arguments],
        "env": environment,
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "4Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }
    pod = {
        "serviceAccountName": "lavin-pipeline",
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 180,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": "lavin-workspace"}},
            {"name": "launcher", "configMap": {"name": "lavin-launcher"}},
            {"name": "test", "configMap": {"name": "test-params"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    labels = {"app.kubernetes.io/part-of": "lavin", "lavin.dev/role": "step"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


@pytest.fixture(scope="module")
def shards(workspace, image):
    """Shards of the tiny preset on the volume."""
    params = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-params"}, "data": {"tiny.yaml": TINY}}
    workspace.apply([params, step_job("test-prepare", image, workspace.namespace, PREPARE)])
    assert workspace.succeeds("test-prepare", timeout_s=900), workspace.story("test-prepare")


class Watched:
    """A training job, seen through its pods and their logs while its step runs."""

    def __init__(self, kubectl, step):
        self.kubectl, self.step = kubectl, step
        self.uids, self.step_number, self.resumed_at = set(), 0, 0

    def pods(self):
        return self.kubectl.list("pods", f"lavin.dev/role=rank,lavin.dev/run={self.step}")

    def look(self):
        """Notes what can be seen now; pods and their logs are gone once the launcher has tidied up."""
        for pod in self.pods():
            self.uids.add(pod["metadata"]["uid"])
            log = self.kubectl.run("logs", pod["metadata"]["name"], "--container", pod["spec"]["containers"][0]["name"]).stdout
            found = filter(None, map(PROGRESS_LINE.search, log.splitlines()))
            self.step_number = max([self.step_number, *(int(match["done"]) for match in found)])
            self.resumed_at = max([self.resumed_at, *map(int, re.findall(r"continuing from step (\d+)", log))])

    def until(self, condition, *, timeout_s):
        """Looks until the condition holds; fails with the story where the step ends or the time is up before."""
        deadline = time.monotonic() + timeout_s
        self.look()
        while not condition():
            ended = self.kubectl.job_state(self.step) != "Running"
            if ended or time.monotonic() > deadline:
                pytest.fail(f"step {self.step_number}, {'ended' if ended else 'too late'}\n{self.kubectl.story(self.step)}")
            time.sleep(1)
            self.look()


def is_second(pod):
    return any(pod["metadata"]["labels"].get(label) == "1" for label in INDEX_LABELS)


def has_token(pod):
    sources = [source for volume in pod["spec"]["volumes"] for source in volume.get("projected", {}).get("sources", [])]
    return any("serviceAccountToken" in source for source in sources)


@pytest.mark.parametrize(("launcher", "crd"), [("pytorchjob", "pytorchjobs.kubeflow.org"), ("trainjob", "trainjobs.trainer.kubeflow.org")])
def test_training_in_two_pods_survives_the_loss_of_one(launcher, crd, needs_kind, shards, workspace, image):
    needs_kind(crd)
    step = f"test-{launcher}"
    overrides = [f"train_vae.steps={STEPS}", f"train_vae.checkpoint_every_steps={CHECKPOINT_EVERY}"]
    workspace.apply([step_job(step, image, workspace.namespace, TRAIN, launcher, *overrides)])
    job = Watched(workspace, step)

    job.until(lambda: job.step_number > CHECKPOINT_EVERY, timeout_s=900)
    pods, before = job.pods(), set(job.uids)
    assert len(pods) == 2
    assert not any(map(has_token, pods))
    (lost,) = filter(is_second, pods)
    workspace("delete", "pod", lost["metadata"]["name"], "--grace-period=0", "--force")

    job.until(lambda: job.uids > before and job.resumed_at >= CHECKPOINT_EVERY, timeout_s=600)
    assert workspace.succeeds(step, timeout_s=1500), workspace.story(step)
    for kind in ("pytorchjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org"):
        assert workspace.run("get", kind, "--output", "name").stdout.count("/") <= 1, "never two jobs for one step"
