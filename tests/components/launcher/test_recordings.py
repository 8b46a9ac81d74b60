"""The launcher's verdict on what a real cluster did."""

import pytest

from components.entry import StepFailedError
from components.launcher.launch import launch
from tests.components.launcher.scenes import Recording

VERDICTS = {
    "fails": r"train_dit: job \S+ failed: PyTorchJob \S+ is failed because 1 Worker replica\(s\) failed \(PyTorchJobFailed\); "
    r"pod \S+-worker-0 ended with exit code 1 \(Error\)",
    "oom": r"pod \S+-master-0 needs more memory than it may have; choose a smaller batch_size ",
    "retries-then-gives-up": r"gave up after 3 restarts; max_restarts in launcher.yaml is 2.*exit code 137 \(Error\)",
    "deadline": r"no end after 30 s, which is deadline_s in launcher.yaml",
    "image-missing": r"pods cannot start: (ErrImagePull|ImagePullBackOff) \(.*localhost/absent:1.*connection refused",
    "deleted": r"job \S+ was deleted by somebody while it ran",
}


def follow(name, recordings, cluster, api, make_request, surroundings, platform, *, nodes=2):
    cluster.scene = Recording(recordings, name)
    limits = platform.model_copy(update={"poll_s": 0.7, "deadline_s": 30.0 if name == "deadline" else 120.0, "multi_node_shape": "fixed"})
    launch(make_request(nodes=nodes), surroundings, limits, api=api)


@pytest.mark.parametrize("name", ["succeeds", "suspended", "worker-lost"])
def test_a_job_that_succeeded_is_a_success(name, recordings, cluster, api, make_request, surroundings, platform):
    follow(name, recordings, cluster, api, make_request, surroundings, platform, nodes=1 if name == "suspended" else 2)
    last = [state for state in cluster.scene.states if "status" in state["object"]][-1]
    assert cluster.clock.time >= last["t_s"]
    assert [method for method, *_ in cluster.requests].count("DELETE") == 0


@pytest.mark.parametrize("name", VERDICTS)
def test_a_job_that_did_not_succeed_is_told_with_its_reason(name, recordings, cluster, api, make_request, surroundings, platform):
    nodes = 2 if name in ("fails", "deleted") else 1
    with pytest.raises(StepFailedError, match=VERDICTS[name]) as raised:
        follow(name, recordings, cluster, api, make_request, surroundings, platform, nodes=nodes)
    assert "\n" not in str(raised.value)
    cluster.clock.sleep(60)
    # A failed job stays to be read; one that was given up goes.
    assert len(cluster.living()) == (1 if " failed: " in str(raised.value) else 0)
    assert "exit code 137 (OOMKilled)" in str(raised.value) or name != "oom"


def test_the_failed_pods_last_lines_are_shown(recordings, cluster, api, make_request, surroundings, platform, lines):
    with pytest.raises(StepFailedError):
        follow("fails", recordings, cluster, api, make_request, surroundings, platform)
    assert lines()[-1] == "  boom: bad batch"


def test_a_queued_job_is_told_once_and_waited_for(recordings, cluster, api, make_request, surroundings, platform, lines):
    follow("suspended", recordings, cluster, api, make_request, surroundings, platform, nodes=1)
    told = [line for line in lines() if "suspended" in line or "admitted" in line]
    assert [line.partition(": ")[2] for line in told] == ["waits suspended", "is admitted"]


def test_a_lost_worker_counts_as_a_restart_and_is_told(recordings, cluster, api, make_request, surroundings, platform, lines):
    follow("worker-lost", recordings, cluster, api, make_request, surroundings, platform)
    assert sum("started again, 1 times" in line for line in lines()) == 1


def test_an_image_that_is_missing_is_not_waited_for_until_the_deadline(recordings, cluster, api, make_request, surroundings, platform):
    with pytest.raises(StepFailedError, match="pods cannot start"):
        follow("image-missing", recordings, cluster, api, make_request, surroundings, platform, nodes=1)
    assert cluster.clock.time < 60
