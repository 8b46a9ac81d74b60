"""The whole pipeline through KFP, where KFP_ENDPOINT names its API: uploaded, run, and run again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7200)]

ROOT = Path(__file__).parents[2]
TINY = (ROOT / "tests" / "tiny.yaml").read_text()
LAVIN = Path(sys.executable).with_name("lavin")
CLAIM = "persistentvolumeclaim"


@pytest.fixture(scope="module")
def kfp(admin, render_for, with_image, installed, shareable):
    """The namespace where KFP runs pipelines, with overlays/standalone in it; what was there before is used and stays."""
    if not os.environ.get("KFP_ENDPOINT"):
        pytest.skip("KFP_ENDPOINT is not set: the address of KFP's API")
    namespace = os.environ.get("KFP_NAMESPACE", "kubeflow")
    bound = type(admin)(namespace)
    had_volume = bound.has(CLAIM, "lavin-workspace")
    objects = with_image(render_for("standalone", namespace=namespace))
    objects = [shareable(item) if item["kind"] == "PersistentVolumeClaim" and not had_volume else item for item in objects]
    with installed(bound, objects):
        assert had_volume or bound.succeeds("workspace-setup", timeout_s=900), bound.story("workspace-setup")
        yield bound


@pytest.fixture(scope="module")
def launcher(admin):
    """How training runs: as a job where the cluster can, else in the step's own pod."""
    return "pytorchjob" if admin.has("crd", "pytorchjobs.kubeflow.org") else "local"


def lavin(*arguments, timeout_s=3600):
    """One command of the CLI, against KFP_ENDPOINT."""
    command = [str(LAVIN), *arguments, "--host", os.environ["KFP_ENDPOINT"]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, cwd=ROOT)


def submit(launcher, *extra):
    parameters = {"params": TINY, "launcher": launcher, "stage": "none", "nodes": "1", "accelerator": "cpu"}
    options = [part for name, value in parameters.items() for part in ("-p", f"{name}={value}")]
    return lavin("submit", *options, "--wait", *extra)


def test_the_pipeline_is_uploaded_and_runs_and_a_second_run_is_done_already(kfp, image, launcher):
    uploaded = lavin("upload", "--image", image)
    assert uploaded.returncode == 0, uploaded.stderr
    first = submit(launcher)
    assert first.returncode == 0, f"{first.stdout}\n{first.stderr}"
    jobs = kfp.list("pods", "lavin.dev/role=rank")
    second = submit(launcher)
    assert second.returncode == 0, f"{second.stdout}\n{second.stderr}"
    known = {pod["metadata"]["uid"] for pod in jobs}
    assert {pod["metadata"]["uid"] for pod in kfp.list("pods", "lavin.dev/role=rank")} <= known, "nothing is trained twice"


def test_a_wrong_parameter_ends_with_2_and_one_line(kfp, launcher):
    done = submit(launcher, "-p", "no_such_parameter=1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
