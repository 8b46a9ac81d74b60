"""What a run lacks is told before anything is asked of the cluster."""

import os

import pytest

from components.launcher.preflight import RIGHTS, check_cluster
from lavin_dit.errors import InputError
from tests.components.launcher.api_server import Fault

RUNTIME = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/lavin-torch"
KUEUE = {"kind": "APIGroup", "name": "kueue.x-k8s.io", "preferredVersion": {"groupVersion": "kueue.x-k8s.io/v1beta2", "version": "v1beta2"}}
QUEUE = "/apis/kueue.x-k8s.io/v1beta2/namespaces/lavin/localqueues/gpus"


@pytest.fixture
def check(api, make_request, surroundings, platform, tmp_path):
    def run(*, queue="", workspace=tmp_path, **request):
        limits = platform.model_copy(update={"queue": queue})
        check_cluster(make_request(**request).settings, surroundings, limits, workspace=workspace, api=api)

    return run


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_a_cluster_that_has_all_of_it_passes_in_no_time(launcher, cluster, check):
    cluster.objects |= {RUNTIME: {"metadata": {}}, "/apis/kueue.x-k8s.io": KUEUE, QUEUE: {"metadata": {}}}
    check(launcher=launcher, queue="gpus")
    assert cluster.clock.time == 0
    assert {method for method, path, *_ in cluster.requests if "selfsubjectaccessreviews" not in path} == {"GET"}


def test_every_right_that_a_launch_uses_is_asked_for(cluster, check):
    cluster.objects |= {RUNTIME: {"metadata": {}}, "/apis/kueue.x-k8s.io": KUEUE, QUEUE: {"metadata": {}}}
    for launcher in ("pytorchjob", "trainjob"):
        check(launcher=launcher, queue="gpus")
    asked = [body["spec"]["resourceAttributes"] for _, path, _, body in cluster.requests if "selfsubjectaccessreviews" in path]
    found = {(one.get("group", ""), "/".join(filter(None, (one["resource"], one.get("subresource")))), one["verb"]) for one in asked}
    known = {(right.group, right.resource, verb) for right in RIGHTS for verb in right.verbs}
    assert found == known - {("argoproj.io", "workflows", "get")}


def test_a_kind_that_the_cluster_lacks_is_named_with_what_it_has(cluster, check):
    cluster.installed = {"trainjobs"}
    with pytest.raises(
        InputError, match=r"the cluster has no pytorchjobs.kubeflow.org; install .*training-operator 1.9, or choose launcher trainjob"
    ):
        check()
    cluster.installed = set()
    with pytest.raises(InputError, match="or choose launcher local"):
        check()
    assert cluster.clock.time == 0


def test_rights_that_are_missing_are_told_together(cluster, check):
    cluster.denied = {("create", "pytorchjobs"), ("delete", "pytorchjobs"), ("get", "pods/log")}
    with pytest.raises(
        InputError,
        match=r"may not create, delete pytorchjobs.kubeflow.org; get pods/log: bind the Role lavin-launcher .*role-launcher.yaml",
    ):
        check()


def test_a_trainjob_needs_its_runtime(check):
    with pytest.raises(InputError, match=r"no ClusterTrainingRuntime lavin-torch; apply manifests/base/training-runtime.yaml"):
        check(launcher="trainjob")


def test_a_queue_needs_kueue_and_to_be_there(cluster, check):
    with pytest.raises(InputError, match=r"queue in launcher.yaml is gpus: the cluster has no Kueue"):
        check(queue="gpus")
    cluster.objects["/apis/kueue.x-k8s.io"] = KUEUE
    with pytest.raises(InputError, match="namespace lavin has no LocalQueue of that name"):
        check(queue="gpus")


def test_a_workspace_that_is_not_mounted_is_told(check, tmp_path):
    with pytest.raises(InputError, match="there is no such folder; mount the claim lavin-workspace there"):
        check(workspace=tmp_path / "absent")


@pytest.mark.skipif(os.getuid() != 0 and not os.access("/proc", os.R_OK), reason="needs /proc")
def test_a_workspace_that_takes_no_file_is_told(check, tmp_path):
    from pathlib import Path

    with pytest.raises(InputError, match=r"workspace is /proc: cannot be written to .*workspace-setup"):
        check(workspace=Path("/proc"))
    check(workspace=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_accelerator_that_the_platform_lacks_is_told(check):
    with pytest.raises(InputError, match="accelerator is tpu: must be one of cpu"):
        check(accelerator="tpu")


def test_an_api_server_that_does_not_answer_is_asked_again_and_then_told(cluster, check):
    cluster.faults = [Fault("reset", times=2)]
    check()
    cluster.faults = [Fault(500, until=1e9)]
    with pytest.raises(InputError, match=r"the API server cannot be asked \(injected\); is it reachable from namespace lavin"):
        check()
    assert cluster.clock.time < 120


def test_an_account_that_nobody_knows_is_told(cluster, check):
    cluster.faults = [Fault(401, until=1e9, message="Unauthorized")]
    with pytest.raises(InputError, match="is the service account known to it"):
        check()
