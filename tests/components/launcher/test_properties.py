"""Whatever happens, in whatever order: no success without one, never two jobs, and always an end."""

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from components.entry import StepFailedError
from components.launcher.kinds import PYTORCHJOB
from components.launcher.launch import launch
from components.launcher.observation import JobState, read_pods
from components.launcher.restarts import RestartCount
from components.launcher.shapes import job_object
from lavin_dit.errors import InputError
from tests.components.launcher.api_server import Cluster, FakeClock, Fault, serving
from tests.components.launcher.scenes import Look, PodLook, Story

TIMES = st.integers(0, 90).map(lambda number: number / 2)
PODS = st.builds(
    PodLook,
    state=st.sampled_from(
        ["running", "running", "done", "pending", "exit:1", "exit:137:OOMKilled", "crashed:1", "evicted", "ErrImagePull", "Unschedulable"]
    ),
    restarts=st.integers(0, 4),
    life=st.integers(0, 3),
    last=st.sampled_from(["", "", "1", "137:OOMKilled"]),
)
CONDITIONS = st.sampled_from(
    [
        ("Created",),
        ("Created", "Running"),
        ("Created", "Restarting"),
        ("Created", "Succeeded"),
        ("Created", "Failed"),
        ("Failed", "Succeeded"),
        (),
    ]
)
LOOKS = st.lists(
    st.builds(
        Look,
        age=TIMES,
        conditions=CONDITIONS,
        pods=st.lists(PODS, max_size=3).map(tuple),
        is_suspended=st.booleans(),
        is_gone=st.sampled_from([False] * 9 + [True]),
    ),
    max_size=8,
).map(lambda looks: sorted(looks, key=lambda look: look.age))
LINES = st.sampled_from(
    [[], [(3.0, "lavin: error: a mistake")], [(9.0, "lavin: failed: a loss")], [(2.0, "progress: train 1/4 1/s eta 3s")]]
)
STORIES = st.builds(Story, looks=LOOKS, lines=st.dictionaries(st.integers(0, 2), LINES))
FAULTS = st.lists(
    st.builds(
        Fault,
        answer=st.sampled_from([401, 403, 409, 410, 429, 500, 503, "reset", "silence", "garbage"]),
        method=st.sampled_from(["", "GET", "POST", "DELETE"]),
        path=st.sampled_from(["", "pods", "log", "events", "pytorchjobs"]),
        times=st.integers(1, 4),
        is_carried_out=st.booleans(),
    ),
    max_size=4,
)
EARLIER = st.sampled_from(["none", "ours", "of another spec", "somebody's", "going"])


class Ended:
    """Whether any job of the cluster ever said, to whoever asked, that it had succeeded."""

    def __init__(self, cluster):
        self.uids = set()
        shown = cluster.shown

        def remember(job):
            body = shown(job)
            types = [condition["type"] for condition in body.get("status", {}).get("conditions", [])]
            if "Succeeded" in types and "Failed" not in types:
                self.uids.add(body["metadata"]["uid"])
            return body

        cluster.shown = remember


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(story=STORIES, faults=FAULTS, earlier=EARLIER, queue=st.sampled_from(["", "gpus"]))
def test_whatever_happens(story, faults, earlier, queue, make_request, surroundings, platform):
    limits = platform.model_copy(update={"queue": queue, "poll_s": 3.0, "deadline_s": 90.0})
    request = make_request(nodes=2)
    cluster = Cluster(FakeClock(), scene=story, faults=faults)
    succeeded = Ended(cluster)
    others = None
    if earlier != "none":
        body = job_object(request, surroundings, limits)
        if earlier == "of another spec":
            body["metadata"]["annotations"]["lavin.dev/spec-sha256"] = "another"
        if earlier == "somebody's":
            body["metadata"]["labels"]["lavin.dev/run"] = "another"
        others = cluster.put(body, age=5.0)["metadata"]["uid"]
        if earlier == "going":
            for job in cluster.jobs.values():
                cluster.delete(job)
    with serving(cluster) as api:
        is_success = False
        try:
            launch(request, surroundings, limits, api=api)
            is_success = True
        except (StepFailedError, InputError) as error:
            event(type(error).__name__)
        # Nothing that the launcher waits for is without an end: claiming, following, giving up.
        assert cluster.clock.time < 3000
    event(f"success: {is_success}")
    assert not is_success or succeeded.uids
    assert not is_success or earlier != "somebody's" or succeeded.uids - {others}
    assert cluster.most_jobs <= 1
    deleted = {body["preconditions"]["uid"] for method, _, _, body in cluster.requests if method == "DELETE"}
    assert earlier != "somebody's" or others not in deleted


POD_WORDS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 3)), max_size=12)


@given(POD_WORDS)
def test_restarts_never_go_down_and_are_no_fewer_than_the_pods_that_replaced_others(words):
    job = JobState("job", "uid", "running", "", "", "", 0.0, is_being_deleted=False)
    count, before, seen = RestartCount(), 0, set()
    for index, life, restarts in words:
        labels = {"training.kubeflow.org/replica-type": "worker", "training.kubeflow.org/replica-index": str(index)}
        status = PodLook("running", restarts=restarts).status()
        pod = {"metadata": {"name": f"job-worker-{index}", "uid": f"{index}-{life}", "labels": labels}, "status": status}
        count.see(job, read_pods(PYTORCHJOB, [pod], "uid"))
        seen.add((index, life))
        assert count.total >= before
        before = count.total
    assert before >= len(seen) - len({index for index, _ in seen})
