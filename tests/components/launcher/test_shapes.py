"""The objects that are sent: what the API server and the operators take, and what the ranks need."""

import json
import re

import kubeflow.training.models as v1_models
import kubeflow_trainer_api.models as v2_models
import pytest
import yaml
from kubeflow.training import ApiClient as TrainingClient

from components.launcher.preflight import RUNTIME
from components.launcher.shapes import NAME_LENGTH, job_name, job_object, times
from lavin_dit.errors import InputError
from tests.components.launcher.conftest import SHIPPED

CASES = {
    "one node": {"launcher": "pytorchjob", "nodes": 1, "processes": 2},
    "two nodes": {"launcher": "pytorchjob", "nodes": 2},
    "master and worker": {"launcher": "pytorchjob", "nodes": 3, "shape": "fixed"},
    "one to three nodes": {"launcher": "pytorchjob", "nodes": 3, "min_nodes": 1},
    "trainjob": {"launcher": "trainjob", "nodes": 2, "processes": 2},
}


@pytest.fixture
def make_object(make_request, surroundings, platform):
    def make(shape="elastic", queue="", **request):
        return job_object(make_request(**request), surroundings, platform.model_copy(update={"multi_node_shape": shape, "queue": queue}))

    return make


def without_empty(value):
    """A typed model gives back neither nulls nor empty collections."""
    if isinstance(value, dict):
        return {key: kept for key, part in value.items() if (kept := without_empty(part)) not in ({}, [], None)}
    return [without_empty(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("queue", ["", "gpus"])
def test_the_schema_of_its_kind_knows_every_field(case, queue, make_object, closed):
    assert closed.wrong(make_object(queue=queue, **CASES[case])) == ""


def test_a_field_that_no_schema_knows_is_found(make_object, closed):
    body = make_object()
    body["spec"]["ttlSecondsAfterFinished"] = 5
    assert "ttlSecondsAfterFinished" in closed.wrong(body)


def test_the_runtime_is_valid_and_is_the_one_that_jobs_and_the_preflight_name(make_object, closed):
    runtime = yaml.safe_load((SHIPPED.parent / "training-runtime.yaml").read_text())
    assert closed.wrong(runtime) == ""
    assert runtime["metadata"]["name"] == RUNTIME == make_object(launcher="trainjob")["spec"]["runtimeRef"]["name"]


@pytest.mark.parametrize("case", [case for case, request in CASES.items() if request["launcher"] == "pytorchjob"])
def test_the_typed_model_of_a_pytorchjob_keeps_all_of_it(case, make_object):
    body = make_object(**CASES[case])
    client = TrainingClient()
    response = type("Response", (), {"data": json.dumps(body)})
    job = client.deserialize(response, v1_models.KubeflowOrgV1PyTorchJob)
    assert without_empty(client.sanitize_for_serialization(job)) == without_empty(body)


def test_the_typed_model_of_a_trainjob_keeps_all_of_it(make_object):
    body = make_object(**CASES["trainjob"])
    job = v2_models.TrainerV1alpha1TrainJob.from_dict(body)
    assert without_empty(job.to_dict()) == without_empty(body)


def templates(body):
    if body["kind"] == "PyTorchJob":
        return [spec["template"] for spec in body["spec"]["pytorchReplicaSpecs"].values()]
    (patch,) = body["spec"]["runtimePatches"]
    return [job["template"]["spec"]["template"] for job in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]]


def containers(body):
    if body["kind"] == "TrainJob":
        return [body["spec"]["trainer"]]
    return [template["spec"]["containers"][0] for template in templates(body)]


@pytest.mark.parametrize("case", CASES)
def test_every_rank_runs_torchrun_on_the_steps_arguments_and_nothing_is_said_of_pet(case, make_object):
    for container in containers(make_object(**CASES[case])):
        assert [*container["command"], *container["args"]] == [
            "torchrun",
            "--nproc-per-node",
            str(CASES[case].get("processes", 1)),
            "-m",
            "components",
            "train_dit",
            "--section",
            "/workspace/store/.dit.section.json",
        ]
        assert container["image"] == "registry/lavin@sha256:1"
        assert not [entry["name"] for entry in container["env"] if entry["name"].startswith("PET_")]


def test_one_node_is_a_master_alone(make_object):
    spec = make_object(nodes=1, processes=4)["spec"]
    assert list(spec["pytorchReplicaSpecs"]) == ["Master"]
    assert (spec["nprocPerNode"], "elasticPolicy" in spec) == ("4", False)


def test_several_nodes_are_workers_that_meet_through_a_rendezvous(make_object):
    spec = make_object(nodes=2)["spec"]
    assert {name: replica["replicas"] for name, replica in spec["pytorchReplicaSpecs"].items()} == {"Worker": 2}
    policy = spec["elasticPolicy"]
    assert (policy["minReplicas"], policy["maxReplicas"], policy["rdzvBackend"]) == (2, 2, "c10d")
    # An empty PET_STANDALONE ends torchrun, and metrics would start an autoscaler.
    assert not {"standalone", "metrics", "nProcPerNode"} & set(policy)


def test_a_pod_that_takes_anothers_place_is_told_of_the_ranks_store(make_object):
    (container,) = containers(make_object(nodes=2))
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]


def test_a_platform_may_ask_for_master_and_workers(make_object):
    spec = make_object(nodes=3, shape="fixed")["spec"]
    assert {name: replica["replicas"] for name, replica in spec["pytorchReplicaSpecs"].items()} == {"Master": 1, "Worker": 2}
    assert "elasticPolicy" not in spec


def test_a_size_that_may_change_is_elastic_whatever_the_platform_prefers(make_object):
    spec = make_object(nodes=3, min_nodes=1, shape="fixed")["spec"]
    assert (spec["elasticPolicy"]["minReplicas"], spec["elasticPolicy"]["maxReplicas"]) == (1, 3)


def test_a_pod_asks_for_each_of_its_processes(make_request, surroundings, platform):
    gpu = platform.accelerators["cpu"].model_copy(
        update={
            "resource": "nvidia.com/gpu",
            "cpu": "12",
            "memory": "120Gi",
            "shm": "32Gi",
            "node_selector": {"kind": "h100"},
            "tolerations": ({"key": "nvidia.com/gpu", "operator": "Exists"},),
        }
    )
    gpus = platform.model_copy(update={"accelerators": {"h100": gpu}})
    body = job_object(make_request(processes=8, accelerator="h100"), surroundings, gpus)
    pod = body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "96", "memory": "960Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "960Gi", "nvidia.com/gpu": "8"},
    }
    assert {"name": "OMP_NUM_THREADS", "value": "12"} in pod["containers"][0]["env"]
    assert pod["nodeSelector"] == {"kind": "h100"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}
    assert volumes["workspace"]["persistentVolumeClaim"]["claimName"] == "lavin-workspace"


@pytest.mark.parametrize(("quantity", "expected"), [("500m", "1500m"), ("0.5", "1.5"), ("4Gi", "12Gi"), ("10", "30"), ("1.25Gi", "3.75Gi")])
def test_quantities_are_multiplied_in_their_unit(quantity, expected):
    assert times(quantity, 3) == expected


def test_a_quantity_that_is_none_is_a_mistake():
    with pytest.raises(InputError, match="4 GB: must be a quantity"):
        times("4 GB", 2)


def test_a_queue_holds_the_job_until_kueue_admits_it(make_object):
    v1, v2 = make_object(queue="gpus"), make_object(queue="gpus", launcher="trainjob")
    assert v1["spec"]["runPolicy"]["suspend"] is v2["spec"]["suspend"] is True
    assert v1["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == v2["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


@pytest.mark.parametrize("case", CASES)
def test_a_job_and_its_pods_say_whose_they_are(case, make_object):
    body = make_object(**CASES[case])
    ours = {
        "app.kubernetes.io/part-of": "lavin",
        "app.kubernetes.io/managed-by": "lavin-launcher",
        "lavin.dev/run": "run-1",
        "lavin.dev/step": "train-dit",
    }
    assert ours.items() <= body["metadata"]["labels"].items()
    for template in templates(body):
        processes = str(CASES[case].get("processes", 1))
        assert template["metadata"]["labels"] == ours | {"lavin.dev/role": "rank", "lavin.dev/processes": processes}


@pytest.mark.parametrize("step", ["train_dit", "Evaluate", "a_step_with_a_name_that_is_far_too_long_for_a_host", "__"])
def test_a_name_is_a_label_and_leaves_room_for_what_operators_append(step):
    name = job_name("0c0b1e2a-7d9f-4f0e-9a55-0a4e5e6f7a8b", step)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= NAME_LENGTH < 63 - len("-worker-9999-0-abcde")


def test_names_differ_by_run_and_by_step_and_by_nothing_else():
    assert job_name("a", "train_dit") == job_name("a", "train_dit")
    assert len({job_name(run, step) for run in ("a", "b") for step in ("train_dit", "train_vae")}) == 4


def test_the_hash_changes_with_what_is_sent(make_object):
    def digest(**request):
        return make_object(**request)["metadata"]["annotations"]["lavin.dev/spec-sha256"]

    assert digest(nodes=1) == digest(nodes=1)
    assert len({digest(nodes=1), digest(nodes=2), digest(nodes=1, processes=2), digest(nodes=1, launcher="trainjob")}) == 4


def test_a_shape_that_is_not_one_is_named(make_request, surroundings, platform, tmp_path):
    (tmp_path / "launcher.yaml").write_text("")
    (tmp_path / "pytorchjob.yaml").write_text("kind: TrainJob")
    with pytest.raises(InputError, match=r"pytorchjob.yaml: must be a PyTorchJob"):
        job_object(make_request(), surroundings, platform, tmp_path)
    (tmp_path / "pytorchjob.yaml").write_text("{")
    with pytest.raises(InputError, match=r"pytorchjob.yaml: cannot be read as the shape of a job"):
        job_object(make_request(), surroundings, platform, tmp_path)


def test_an_accelerator_that_the_platform_lacks_is_named(make_request, surroundings, platform):
    with pytest.raises(InputError, match="accelerator is tpu: must be one of cpu"):
        job_object(make_request(accelerator="tpu"), surroundings, platform)
