"""The job that records a run: made by hand for each run, and held to the same rules as what an overlay installs."""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

from tests.manifests.test_pods import breaches

FILE = Path(__file__).parents[2] / "manifests" / "record-job.yaml"
JOB = yaml.safe_load(FILE.read_text())


def test_it_keeps_the_rules_of_every_pod(overlay, pod_templates):
    named = JOB | {"metadata": {**JOB["metadata"], "name": "lavin-record-1"}}
    (template,) = pod_templates(named)
    assert breaches(template) == []
    kubernetes_validate.validate(JOB, "1.34", strict=True)
    assert template.spec["volumes"][0]["persistentVolumeClaim"]["claimName"] in overlay.of("PersistentVolumeClaim")


def test_its_command_is_one_that_lavin_takes(tmp_path):
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    lavin, *arguments = container["command"]
    assert lavin == "lavin"
    given = [str(tmp_path) if argument == "/workspace" else argument for argument in arguments]
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"lavin: error: run RUN_ID: is not in {tmp_path}/runs; must be the id of a run that used this workspace\n"
