"""One job for a step, whatever the cluster, other people and the network do meanwhile."""

import os
import signal

import pytest

from components.entry import StepFailedError
from components.launcher.launch import launch
from components.launcher.shapes import job_object
from lavin_dit.errors import InputError
from tests.components.launcher.api_server import EPOCH, Fault, timestamp
from tests.components.launcher.scenes import Look, PodLook, Story

RUNNING = ("Created", "Running")
DONE = ("Created", "Succeeded")
UP = PodLook("running")
GOOD = [Look(1, RUNNING, (UP,)), Look(10, DONE, (PodLook("done"),))]
PROGRESS = "progress: train J-DiT {}/40 12.5/s eta 3s loss 0.5"


@pytest.fixture
def run(cluster, api, make_request, surroundings, platform):
    """Launches the step; keywords are of the platform or of the request."""

    def go(scene=None, *, surroundings=surroundings, **values):
        cluster.scene = scene or Story(GOOD)
        limits = {key: values.pop(key) for key in list(values) if key in type(platform).model_fields}
        launch(make_request(**values), surroundings, platform.model_copy(update=limits), api=api)

    return go


@pytest.fixture
def sent(make_request, surroundings, platform):
    """The object of an earlier try of the same step."""
    return job_object(make_request(), surroundings, platform)


def requests(cluster, method):
    return [(path, query, body) for verb, path, query, body in cluster.requests if verb == method]


def test_a_job_is_created_strictly_and_in_our_name(cluster, run, closed):
    cluster.check = closed.wrong
    for number, (launcher, nodes) in enumerate((("pytorchjob", 1), ("trainjob", 2))):
        pods = (UP,) * nodes
        run(Story([Look(1, RUNNING, pods), Look(5, ("Complete",) if number else DONE, pods)]), launcher=launcher, nodes=nodes)
    assert [query for _, query, _ in requests(cluster, "POST")] == [{"fieldValidation": "Strict", "fieldManager": "lavin-launcher"}] * 2


def test_the_workflow_of_the_steps_pod_owns_the_job(cluster, run, surroundings):
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "lavin-dit-x", "uid": "w-1"}
    extra = {"controller": True, "blockOwnerDeletion": True}
    cluster.objects["/api/v1/namespaces/lavin/pods/step-pod"] = {"metadata": {"ownerReferences": [owner | extra]}}
    run(surroundings=surroundings.__class__(**{**vars(surroundings), "pod_name": "step-pod"}))
    (job,) = cluster.living()
    assert job["metadata"]["ownerReferences"] == [owner]


def test_without_a_pod_of_kfp_there_is_no_owner(cluster, run):
    run()
    assert "ownerReferences" not in cluster.living()[0]["metadata"]


def test_a_trainjob_goes_when_it_has_succeeded_and_a_pytorchjob_stays_until_its_time_is_up(cluster, run):
    run(Story([Look(1, RUNNING, (UP,)), Look(5, ("Complete",), (PodLook("done"),))]), launcher="trainjob")
    cluster.clock.sleep(10)
    assert cluster.living() == []
    run()
    cluster.clock.sleep(10)
    assert len(cluster.living()) == 1


# An earlier try.


def test_a_running_job_of_an_earlier_try_is_taken_over(cluster, run, sent):
    cluster.scene = Story(GOOD)
    earlier = cluster.put(sent, age=5)
    run()
    assert [job["metadata"]["uid"] for job in cluster.living()] == [earlier["metadata"]["uid"]]
    assert cluster.clock.time < 8


def test_a_creation_whose_answer_is_lost_is_found_again(cluster, run):
    cluster.faults = [Fault("reset", "POST", is_carried_out=True)]
    run()
    assert (cluster.most_jobs, len(requests(cluster, "DELETE"))) == (1, 0)


@pytest.mark.parametrize("why", ["it failed", "it has another spec"])
def test_an_earlier_job_that_is_of_no_use_makes_way(why, cluster, run, sent):
    if why == "it has another spec":
        sent["metadata"]["annotations"]["lavin.dev/spec-sha256"] = "another"

    class Failed(Story):
        def state(self, _age):
            return {"status": {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "", "reason": "", "message": ""}]}}

    cluster.scene = Failed([])
    earlier = cluster.put(sent)
    cluster.clock.at(3.0, lambda: setattr(cluster, "scene", Story(GOOD)))
    run(cluster.scene)
    (_, _, options) = requests(cluster, "DELETE")[0]
    assert options["preconditions"] == {"uid": earlier["metadata"]["uid"]}
    assert cluster.most_jobs == 1
    assert [job["metadata"]["uid"] != earlier["metadata"]["uid"] for job in cluster.living()] == [True]


def test_an_earlier_job_that_is_going_is_waited_for(cluster, run, sent):
    cluster.scene = Story(GOOD)
    earlier = cluster.put(sent)
    cluster.delete(cluster.jobs["pytorchjobs", earlier["metadata"]["name"]])
    run()
    assert cluster.living()[0]["metadata"]["uid"] != earlier["metadata"]["uid"]


def test_somebody_elses_job_of_that_name_is_left_alone(cluster, run, sent):
    sent["metadata"]["labels"]["lavin.dev/run"] = "run-2"
    cluster.put(sent)
    with pytest.raises((InputError, StepFailedError), match=r"lavin-train-dit-\w+.* not .*this run"):
        run()
    assert (len(cluster.living()), len(requests(cluster, "DELETE"))) == (1, 0)


# The deadline.


def test_the_age_of_an_adopted_job_counts(cluster, run, sent, platform):
    cluster.scene = Story([Look(0, RUNNING, (UP,))])
    cluster.put(sent, age=platform.deadline_s - 20)
    with pytest.raises(StepFailedError, match="no end after 120 s"):
        run(cluster.scene)
    assert 19 < cluster.clock.time < 25


@pytest.mark.parametrize("skew_s", [-90_000.0, -50.0, 50.0, 90_000.0])
def test_a_clock_that_is_wrong_moves_no_deadline(skew_s, cluster, run, sent, platform):
    cluster.skew_s = skew_s
    cluster.scene = Story([Look(0, RUNNING, (UP,))])
    cluster.put(sent, age=platform.deadline_s - 20)
    with pytest.raises(StepFailedError, match="no end after"):
        run(cluster.scene)
    assert 17 < cluster.clock.time < 27


def test_the_deadline_holds_while_nobody_answers_and_what_is_left_is_told(cluster, run):
    cluster.faults = [Fault("reset", until=1e9, path="lavin-train")]
    with pytest.raises(StepFailedError, match=r"no end after 120 s.*could not be deleted.*lavin jobs gc"):
        run(Story([Look(0, RUNNING, (UP,))]))
    assert cluster.clock.time < 240


# The network and the API server.


@pytest.mark.parametrize(
    "fault",
    [
        Fault(410, "GET", times=2),
        Fault(429, "GET", times=2, headers={"Retry-After": "3"}),
        Fault(500, "GET", times=3),
        Fault(503, times=3),
        Fault("reset", times=3),
        Fault("silence", times=2),
        Fault("garbage", "GET", times=2),
        Fault(401, "GET", times=2),
        Fault(403, "GET", times=2),
        Fault("reset", until=33.0),
        Fault("reset", "GET", until=95.0),
    ],
    ids=lambda fault: f"{fault.answer}-{fault.method or 'any'}-{fault.until or fault.times}",
)
def test_a_job_outlives_an_api_server_that_is_unwell(fault, cluster, run):
    cluster.faults = [Fault(**vars(fault))]
    run(deadline_s=400.0)
    assert (cluster.most_jobs, len(requests(cluster, "DELETE"))) == (1, 0)


def test_an_outage_while_the_job_runs_is_told_once(cluster, run, lines):
    cluster.clock.at(3.0, lambda: cluster.faults.append(Fault("reset", until=cluster.clock.time + 40)))
    run(Story([Look(1, RUNNING, (UP,)), Look(60, DONE, (PodLook("done"),))]))
    told = [line for line in lines() if "API server" in line]
    assert len(told) == 2
    assert "answers again" in told[1]


def test_the_server_says_how_long_to_wait(cluster, run):
    cluster.clock.at(3.0, lambda: cluster.faults.append(Fault(429, "GET", headers={"Retry-After": "50"})))
    run()
    assert cluster.clock.time >= 53


def test_a_server_that_has_only_just_started_and_knows_no_jobs_yet_is_no_loss(cluster, run):
    cluster.clock.at(3.0, lambda: cluster.installed.clear())
    cluster.clock.at(9.0, lambda: cluster.installed.add("pytorchjobs"))
    run()


@pytest.mark.parametrize("status", [401, 403])
def test_rights_that_are_gone_for_good_are_told(status, cluster, run):
    cluster.clock.at(3.0, lambda: cluster.faults.append(Fault(status, "GET", until=1e9, message="no longer allowed")))
    with pytest.raises(StepFailedError, match=r"no longer allowed.*lavin-launcher"):
        run(Story([Look(1, RUNNING, (UP,))]), deadline_s=1000.0)
    assert cluster.clock.time < 300


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, 'strict decoding error: unknown field "spec.ttl"'),
        (422, "PyTorchJob.kubeflow.org is invalid"),
        (403, 'admission webhook "validator.pytorchjob.training-operator.kubeflow.org" denied the request'),
        (403, 'User "system:serviceaccount:lavin:default" cannot create resource "pytorchjobs"'),
    ],
)
def test_a_job_that_is_refused_is_told_in_the_servers_words(status, message, cluster, run):
    cluster.faults = [Fault(status, "POST", until=1e9, message=message)]
    with pytest.raises((InputError, StepFailedError)) as raised:
        run()
    assert message in str(raised.value)
    assert cluster.living() == []
    assert cluster.clock.time < 130


# Other people.


def test_a_job_that_somebody_deletes_is_told(cluster, run):
    cluster.clock.at(4.0, lambda: [cluster.delete(job) for job in cluster.jobs.values()])
    with pytest.raises(StepFailedError, match=r"deleted by somebody"):
        run(Story([Look(1, RUNNING, (UP,))]))


def test_another_job_of_the_same_name_is_not_taken_for_ours(cluster, run, sent):
    def replace():
        cluster.jobs.clear()
        cluster.put(sent, age=30)

    cluster.clock.at(4.0, replace)
    with pytest.raises(StepFailedError):
        run()
    assert len(cluster.living()) == 1
    assert requests(cluster, "DELETE") == []


# A job that cannot start.


POD = {"kind": "Pod", "name": "JOB-worker-0", "uid": "pod"}


def stuck(*pods, warnings=()):
    return Story([Look(1, ("Created",), pods)], warnings=list(warnings))


@pytest.mark.parametrize(
    ("scene", "sentence", "at_most_s"),
    [
        (stuck(PodLook("InvalidImageName", message="couldn't parse")), r"pods cannot start: InvalidImageName \(couldn't parse\)", 40),
        (stuck(PodLook("ErrImagePull", message="manifest: not found")), r"pods cannot start: ErrImagePull \(manifest: not found\)", 40),
        (stuck(PodLook("ImagePullBackOff", message="timeout")), r"pods cannot start: ImagePullBackOff \(timeout\)", 330),
        (stuck(PodLook("CreateContainerConfigError", message="no secret")), r"pods cannot start: CreateContainerConfigError", 640),
        (stuck(PodLook("Unschedulable", message="0/3 nodes")), r"pods cannot start: Unschedulable \(0/3 nodes\)", 640),
        (stuck(PodLook("pending")), r"pods cannot start", 640),
        (
            stuck(PodLook("pending"), warnings=[{"reason": "FailedMount", "message": "claim is lost", "involvedObject": POD}]),
            r"pods cannot start: FailedMount \(claim is lost\)",
            640,
        ),
        (stuck(), r"pods cannot start: .*is Kubeflow's training-operator 1.9 running\?", 640),
        (
            stuck(
                warnings=[{"reason": "FailedCreatePod", "message": 'pods "JOB-worker-0" is forbidden: violates PodSecurity "restricted"'}]
            ),
            r"pods cannot start: FailedCreatePod \(.*violates PodSecurity.*multi_node_shape",
            90,
        ),
        (
            stuck(warnings=[{"reason": "FailedCreatePod", "message": "exceeded quota: lavin"}]),
            r"pods cannot start: FailedCreatePod \(exceeded quota",
            640,
        ),
    ],
)
def test_pods_that_cannot_start_are_given_up_with_the_reason(scene, sentence, at_most_s, cluster, run):
    with pytest.raises(StepFailedError, match=sentence):
        run(scene, start_timeout_s=600.0, deadline_s=10_000.0)
    assert cluster.clock.time < at_most_s
    cluster.clock.sleep(10)
    assert cluster.living() == []


def test_a_queued_job_may_wait_for_longer_than_a_start_takes(cluster, run, lines):
    queued = Look(0, ("Created", "Suspended"), (), is_suspended=True)
    run(Story([queued, Look(100, RUNNING, (UP,)), Look(110, DONE, (PodLook("done"),))]), queue="gpus", start_timeout_s=20.0)
    assert sum("queue" in line for line in lines()) == 1


def test_an_image_that_comes_late_is_waited_for(run):
    run(
        Story(
            [
                Look(1, ("Created",), (PodLook("ErrImagePull", message="timeout"),)),
                *[Look(30 + look.age, look.conditions, look.pods) for look in GOOD],
            ]
        )
    )


def test_an_elastic_job_goes_on_with_fewer_pods(cluster, run):
    pods = (UP, PodLook("Unschedulable", message="0/3 nodes"))
    run(Story([Look(1, RUNNING, pods), Look(100, DONE, pods)]), nodes=2, min_nodes=1, start_timeout_s=20.0)


def test_warnings_that_mend_themselves_are_no_reason(cluster, run):
    warning = {"reason": "FailedCreatePod", "message": 'object is being deleted: pods "JOB-worker-0" already exists'}
    run(Story([Look(1, ("Created",)), *[Look(30 + look.age, look.conditions, look.pods) for look in GOOD]], warnings=[warning]))


# Restarts.


def test_restarts_are_counted_over_pods_and_containers_and_bounded(cluster, run):
    looks = [
        Look(1, RUNNING, (UP, UP)),
        Look(5, RUNNING, (PodLook("running", restarts=1, last="1"), UP)),
        Look(9, RUNNING, (PodLook("running", restarts=1, last="1"), PodLook("running", life=1))),
        Look(13, RUNNING, (PodLook("crashed:1", restarts=1), PodLook("running", life=1))),
        Look(17, RUNNING, (PodLook("running", restarts=2, last="1"), PodLook("running", life=1))),
    ]
    with pytest.raises(StepFailedError, match=r"gave up after 3 restarts.*max_restarts.*exit code 1 \(Error\)"):
        run(Story(looks), nodes=2)
    assert 16 < cluster.clock.time < 20


def test_pods_that_a_queue_stopped_and_started_again_are_no_restarts(cluster, run):
    looks = [Look(1, RUNNING, (UP,))]
    for number in range(1, 6):
        looks += [
            Look(10 * number, ("Created", "Suspended"), (), is_suspended=True),
            Look(10 * number + 5, RUNNING, (PodLook("running", life=number),)),
        ]
    run(Story([*looks, Look(70, DONE, (PodLook("done", life=5),))]), queue="gpus")


def test_an_evicted_pod_that_is_made_anew_is_borne(cluster, run):
    looks = [Look(1, RUNNING, (UP,)), Look(5, RUNNING, (PodLook("evicted"),)), Look(9, RUNNING, (PodLook("running", life=1),))]
    run(Story([*looks, Look(15, DONE, (PodLook("done", life=1),))]))


# What ranks say.


def test_rank_0s_lines_are_passed_on_once_and_torchruns_own_are_not(cluster, run, lines):
    written = [(number, PROGRESS.format(number)) for number in range(2, 30)]
    written += [(2.5, "continuing from step 2"), (3.5, "W1123 03:00:00.000000 1 torch/distributed/run.py:800] *****")]
    story = Story([Look(1, RUNNING, (UP, UP)), Look(30, DONE, (PodLook("done"), UP))], lines={0: sorted(written), 1: [(4, "another rank")]})
    run(story, nodes=2, poll_s=5.0)
    said = [line for line in lines() if line.startswith(("progress", "continuing", "W1123", "another"))]
    assert len(said) == len(set(said))
    assert "continuing from step 2" in said
    assert said[-1] == PROGRESS.format(29)
    assert not any(line.startswith(("W1123", "another")) for line in said)


def test_of_many_lines_of_progress_only_the_last_of_each_look_is_passed_on(run, lines):
    written = [(1 + number / 10, PROGRESS.format(number)) for number in range(200)]
    run(Story([Look(1, RUNNING, (UP,)), Look(25, DONE, (PodLook("done"),))], lines={0: written}), poll_s=5.0)
    assert sum(line.startswith("progress") for line in lines()) <= 8


def test_lines_of_two_pipes_that_come_out_of_order_are_all_passed_on(run, lines):
    written = [(3.5, "second"), (3.2, "first"), (3.5, "third"), (7.1, "fourth")]
    run(Story([Look(1, RUNNING, (UP,)), Look(12, DONE, (PodLook("done"),))], lines={0: written}), poll_s=4.0)
    words = ["second", "first", "third", "fourth"]
    assert [line for line in lines() if line in words] == words


MISTAKE = "lavin: error: train_dit.batch_size is 1: must be at least the number of processes (2)"
DIVERGED = "lavin: failed: the gradient is no longer finite at step 7: lower optimizer.learning_rate"


@pytest.mark.parametrize(("line", "kind"), [(MISTAKE, InputError), (DIVERGED, StepFailedError)])
@pytest.mark.parametrize("index", [0, 1])
def test_a_ranks_own_sentence_decides_and_nothing_is_retried(line, kind, index, cluster, run):
    ends = [UP, UP]
    ends[index] = PodLook("crashed:1")
    story = Story([Look(1, RUNNING, (UP, UP)), Look(5, RUNNING, tuple(ends))], lines={index: [(4, line)]})
    with pytest.raises(kind) as raised:
        run(story, nodes=2)
    assert type(raised.value) is kind
    assert str(raised.value) == line.partition(": ")[2].partition(": ")[2]
    cluster.clock.sleep(10)
    assert cluster.living() == []


def test_a_sentence_is_found_in_the_log_of_the_container_before(cluster, run):
    looks = [Look(1, RUNNING, (UP,)), Look(5, RUNNING, (PodLook("running", restarts=1, last="1"),))]
    with pytest.raises(InputError, match="batch_size is 1"):
        run(Story(looks, lines_before={0: [(4.5, MISTAKE)]}))


def test_a_job_that_failed_says_the_ranks_sentence_alone(cluster, run):
    story = Story([Look(1, RUNNING, (UP,)), Look(5, ("Failed",), (PodLook("exit:1"),))], lines={0: [(4, MISTAKE), (4.5, "Traceback")]})
    with pytest.raises(InputError) as raised:
        run(story)
    assert str(raised.value) == MISTAKE.removeprefix("lavin: error: ")
    assert len(cluster.living()) == 1, "its pods are kept to be read"


def test_a_failure_without_a_sentence_tells_exit_codes_and_shows_the_last_lines(run, lines):
    written = [
        (3, "RuntimeError: CUDA error"),
        (4, "E1123 03:00:00.000000 1 torch/distributed/elastic/x.py:882] failed (exitcode: 1) local_rank: 0"),
    ]
    failed = Look(5, ("Failed:PyTorchJobFailed:Job has reached the specified backoff limit",), (PodLook("exit:1"),))
    with pytest.raises(StepFailedError, match=r"backoff limit.*PyTorchJobFailed|PyTorchJobFailed.*backoff limit") as raised:
        run(Story([Look(1, RUNNING, (UP,)), failed], lines={0: written}))
    assert "exit code 1 (Error)" in str(raised.value)
    assert any("RuntimeError: CUDA error" in line for line in lines())


def test_too_little_memory_is_not_tried_again_and_says_what_to_do(cluster, run):
    looks = [Look(1, RUNNING, (UP,)), Look(5, RUNNING, (PodLook("crashed:137:OOMKilled"),))]
    with pytest.raises(StepFailedError, match=r"OOMKilled.*raise memory of accelerator cpu in launcher.yaml"):
        run(Story(looks))
    assert cluster.clock.time < 8


# Being asked to end.


@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_deletes_the_job_and_ends_as_it_asks(number, end, cluster, run):
    before = signal.getsignal(number)
    cluster.clock.at(5.0, lambda: os.kill(os.getpid(), number))
    with pytest.raises(end) as raised:
        run(Story([Look(1, RUNNING, (UP,))]))
    assert end is KeyboardInterrupt or raised.value.code == 128 + number
    cluster.clock.sleep(10)
    assert cluster.living() == []
    assert signal.getsignal(number) == before


def test_a_signal_during_the_creation_leaves_nothing_behind(cluster, run):
    cluster.faults = [Fault("reset", "POST", is_carried_out=True)]
    cluster.clock.at(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        run(Story([Look(1, RUNNING, (UP,))]))
    cluster.clock.sleep(10)
    assert cluster.living() == []


def test_times_of_the_tests_are_of_the_same_clock():
    assert timestamp(EPOCH).endswith("Z")
