"""What is left of runs, and how it goes."""

import pytest

from components.entry import StepFailedError
from components.launcher.leftovers import known_jobs, remove_all, remove_jobs_of_run
from components.launcher.shapes import job_object
from components.launcher.surroundings import Surroundings
from tests.components.launcher.api_server import Fault

WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "lavin-dit-x", "uid": "w-1"}
WORKFLOW_PATH = "/apis/argoproj.io/v1alpha1/namespaces/lavin/workflows/lavin-dit-x"


@pytest.fixture
def put(cluster, make_request, platform):
    """A job of a run, in some state."""

    def make(run="run-1", launcher="pytorchjob", condition="Running", *, age=0.0, owner=None):
        surroundings = Surroundings(run_id=run, image="image", namespace="lavin", pod_name="", volume="claim")
        body = job_object(make_request(launcher=launcher), surroundings, platform)
        if owner:
            body["metadata"]["ownerReferences"] = [owner]
        condition = {"type": condition, "status": "True", "lastTransitionTime": "", "reason": "", "message": ""}
        return cluster.put(body | {"status": {"conditions": [condition]}}, f"{launcher}s", age=age)

    return make


def test_what_a_run_left_running_goes_and_nothing_else(cluster, api, put, surroundings):
    running, trainjob = put(), put(launcher="trainjob", condition="Suspended")
    kept = [put(run="run-2"), put(run="run-3", condition="Failed")]
    assert sorted(remove_jobs_of_run("run-1", surroundings, api=api)) == sorted(job["metadata"]["name"] for job in (running, trainjob))
    assert remove_jobs_of_run("run-3", surroundings, api=api) == [], "a failed job stays to be read"
    cluster.clock.sleep(10)
    assert {job["metadata"]["uid"] for job in cluster.living()} == {job["metadata"]["uid"] for job in kept}


def test_a_job_that_is_not_ours_is_not_known(api, put, cluster):
    put()["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "somebody"
    assert known_jobs(api) == []


def test_jobs_are_leftovers_when_they_have_ended_or_their_workflow_is_gone(cluster, api, put):
    cluster.objects["/apis/argoproj.io"] = {}
    cluster.objects[WORKFLOW_PATH] = {"metadata": {"uid": "w-1"}}
    put("running", owner=WORKFLOW, age=40)
    put("orphan", owner=WORKFLOW | {"uid": "w-0"}, age=30)
    put("ownerless", age=20)
    put("ended", condition="Failed", owner=WORKFLOW, age=10)
    assert [(job.run_id, job.is_leftover) for job in known_jobs(api)] == [
        ("running", False),
        ("orphan", True),
        ("ownerless", False),
        ("ended", True),
    ]
    assert [round(job.age_s) for job in known_jobs(api)] == [40, 30, 20, 10]
    del cluster.objects[WORKFLOW_PATH]
    assert [job.is_leftover for job in known_jobs(api)] == [True, True, False, True]


def test_an_owner_that_cannot_be_looked_up_is_taken_to_be_there(cluster, api, put):
    put(owner=WORKFLOW)
    cluster.faults = [Fault(403, path="workflows", times=9)]
    assert [job.has_lost_owner for job in known_jobs(api)] == [False]
    cluster.faults = []
    # A server that does not know workflows at all, or has only just started.
    assert [job.has_lost_owner for job in known_jobs(api)] == [False]


def test_a_cluster_with_one_kind_only_shows_that_one(cluster, api, put):
    put()
    cluster.installed = {"pytorchjobs"}
    assert [job.kind.kind for job in known_jobs(api)] == ["PyTorchJob"]


def test_a_job_that_is_replaced_meanwhile_is_left_alone(cluster, api, put):
    put()
    found = known_jobs(api)
    cluster.jobs.clear()
    other = put()
    assert remove_all(api, found) == [other["metadata"]["name"]]
    cluster.clock.sleep(10)
    assert len(cluster.living()) == 1


def test_no_right_to_list_or_to_delete_is_told(cluster, api, put, surroundings):
    put()
    cluster.denied = {("delete", "pytorchjobs")}
    with pytest.raises(StepFailedError, match=r"job lavin-train-dit-\w+ could not be deleted \(pytorchjobs.kubeflow.org is forbidden"):
        remove_jobs_of_run("run-1", surroundings, api=api)
    cluster.denied = {("list", "pytorchjobs")}
    with pytest.raises(StepFailedError, match=r"does not show the jobs of namespace lavin \(pytorchjobs.kubeflow.org is forbidden"):
        remove_jobs_of_run("run-1", surroundings, api=api)
