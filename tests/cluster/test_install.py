"""The cluster takes the manifests, and what they say is so."""

import json

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

CANNOT_CHANGE = {"PersistentVolumeClaim", "Job"}
SHARED = {"PriorityClass", "ClusterTrainingRuntime"}
"""Objects of the whole cluster that another installation may have brought."""
ROOT_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "root"},
    "spec": {"containers": [{"name": "root", "image": "none", "securityContext": {"runAsUser": 0}}]},
}


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_the_api_server_takes_every_object(kubectl, render_for, known, overlay):
    objects = known(render_for(overlay, namespace=kubectl.namespace))
    # What a volume and a Job were made with cannot be changed, not even in a dry run.
    fresh = [item for item in objects if item["kind"] not in CANNOT_CHANGE or not kubectl.has(item["kind"], item["metadata"]["name"])]
    lines = kubectl.apply(fresh, "--dry-run=server").splitlines()
    assert len([line for line in lines if line.endswith("(server dry run)")]) == len(fresh)


def test_applying_again_changes_nothing(kubectl, dev, known):
    lines = kubectl.apply(known([item for item in dev if item["kind"] not in CANNOT_CHANGE | SHARED])).splitlines()
    assert [line for line in lines if not line.endswith("unchanged")] == []


def test_the_namespace_refuses_a_pod_that_runs_as_root(kubectl):
    done = kubectl.run("create", "--dry-run=server", "--filename", "-", stdin=json.dumps(ROOT_POD))
    assert done.returncode != 0
    assert "violates PodSecurity" in done.stderr
    assert "restricted" in done.stderr


def test_the_volume_is_made_ready_for_the_group_of_the_steps(workspace):
    assert workspace.list("persistentvolumeclaims")[0]["status"]["phase"] == "Bound"
