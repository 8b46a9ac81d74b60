import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.entry import INTERRUPTED, StepFailedError
from lavin_dit.errors import InputError
from pipelines import following
from pipelines.connection import ServerError
from pipelines.following import wait
from pipelines.submit import submit

RunCommand = Callable[..., Any]
NEVER = "1970-01-01T00:00:00Z"


def task(name: str, state: str, start: str = "", end: str = "", **more: Any) -> dict[str, Any]:
    """A task as KFP tells it; what has not happened, happened in 1970."""
    times = {"start_time": f"2026-09-01T10:{start}Z" if start else NEVER, "end_time": f"2026-09-01T10:{end}Z" if end else NEVER}
    return {"display_name": name, "state": state, **times, **more}


def look(state: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What one look at a run finds."""
    return {"state": state, "run_details": {"task_details": list(tasks)}, **more}


@pytest.fixture
def run_id(released: Any, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run that was started."""
    monkeypatch.setattr(following, "POLL_S", 0.01)
    monkeypatch.setattr(following, "BACKOFF_S", (0.01, 0.05))
    run_command(submit)
    (run,) = released.store.runs
    return str(run)


def lines(result: Any, run_id: str) -> list[str]:
    """What was told after the link."""
    link, *told = result.stdout.splitlines()
    assert link.endswith(f"/#/runs/details/{run_id}")
    return [line.replace(run_id, "RUN") for line in told]


def test_what_the_steps_do_is_told_once_and_in_order(released: Any, run_id: str, run_command: RunCommand) -> None:
    driver, root = task("prepare-driver", "SUCCEEDED", "00:01", "00:05"), task("root", "RUNNING", "00:00")
    outer = [
        root,
        task("lavin-dit-x7k2p", "RUNNING", "00:00"),
        task("exit-handler-1", "RUNNING", "00:00"),
        task("executor", "RUNNING", "02:00"),
    ]
    released.script = [
        look("PENDING"),
        look("RUNNING", *outer, driver),
        look("RUNNING", *outer, driver, task("train-vae", "RUNNING", "02:00"), task("prepare", "SKIPPED", "00:05", "00:05")),
        look("RUNNING", *outer, driver, task("train-vae", "RUNNING", "02:00"), task("prepare", "SKIPPED", "00:05", "00:05")),
        look("RUNNING", *outer, task("train-vae", "SUCCEEDED", "02:00", "03:03"), task("train-dit", "PENDING", "03:05")),
        look(
            "SUCCEEDED",
            task("train-dit", "SUCCEEDED", "03:05", "59:00"),
            created_at="2026-09-01T10:00:00Z",
            finished_at="2026-09-01T11:00:00Z",
        ),
    ]
    assert lines(run_command(wait, run_id), run_id) == [
        "step prepare: cached",
        "step train_vae: running",
        "step train_vae: succeeded in 63 s",
        "step train_dit: pending",
        "step train_dit: succeeded in 56 min",
        "run RUN succeeded in 60 min",
    ]


def node(name: str, state: str, number: int, *children: int, start: str = "00:01") -> dict[str, Any]:
    """A node as the server makes it of Argo's: it names pods by template, and children by node."""
    children_named = [{"pod_name": f"lavin-dit-x7k2p-{child}"} for child in children]
    return task(name, state, start, "00:09", pod_name=f"lavin-dit-x7k2p-system-container-{number}", child_tasks=children_named)


def test_a_step_whose_executor_was_skipped_came_from_the_cache(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.script = [look("SUCCEEDED", node("prepare", "SUCCEEDED", 111, 222), node("executor", "SKIPPED", 222))]
    assert lines(run_command(wait, run_id), run_id)[0] == "step prepare: cached"


def test_a_step_that_waits_for_its_pod_is_pending(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.script = [
        look("RUNNING", node("train-dit", "RUNNING", 111, 222), node("executor", "PENDING", 222)),
        look("RUNNING", node("train-dit", "RUNNING", 111, 222), node("executor", "RUNNING", 222)),
        look("SUCCEEDED", node("train-dit", "SUCCEEDED", 111, 222), node("executor", "SUCCEEDED", 222)),
    ]
    words = ["pending", "running", "succeeded in 8 s"]
    assert lines(run_command(wait, run_id), run_id)[:3] == [f"step train_dit: {word}" for word in words]


@pytest.mark.parametrize(
    ("place", "log"),
    [
        (
            "/apis/v1alpha1/runs/{run}/nodes/{pod}/log",
            "step resolve: started\n[KFP] lavin: error: data_revision v9: no such branch\nexit 2",
        ),
        ("/k8s/pod/logs", "lavin: failed: data_revision v9: no such branch"),
    ],
)
def test_why_a_step_failed_is_read_from_the_log_of_its_last_try(
    released: Any, run_id: str, run_command: RunCommand, capsys: pytest.CaptureFixture[str], place: str, log: str
) -> None:
    pod = "lavin-dit-x7k2p-system-container-444"
    released.logs = {place.format(run=run_id, pod=pod): log}
    tries = [node("executor(0)", "FAILED", 333, start="00:02"), node("executor(1)", "FAILED", 444, start="00:05")]
    released.script = [look("FAILED", node("resolve", "FAILED", 111, 222), node("executor", "FAILED", 222, 333, 444), *tries)]
    with pytest.raises(StepFailedError, match=f"^run {run_id} failed at resolve: data_revision v9: no such branch; http"):
        wait(run_id)
    assert "step resolve: failed: data_revision v9: no such branch\n" in capsys.readouterr().out


def test_a_step_that_failed_without_a_word_is_told_all_the_same(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.script = [look("FAILED", node("resolve", "FAILED", 111, 222), node("executor", "FAILED", 222))]
    with pytest.raises(StepFailedError, match=f"^run {run_id} failed at resolve; http"):
        run_command(wait, run_id)


def test_a_step_that_never_comes_from_the_cache_was_skipped(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.script = [look("SUCCEEDED", task("promote", "SKIPPED", "00:00", "00:00"))]
    assert lines(run_command(wait, run_id), run_id)[0] == "step promote: skipped"


def test_a_failed_run_names_the_step_and_the_message(released: Any, run_id: str, run_command: RunCommand, capsys: Any) -> None:
    failed = task("train-vae", "FAILED", "00:01", "00:05", error={"code": 13, "message": "OOMKilled\nstack"})
    released.script = [look("RUNNING", failed), look("FAILED", failed, error={"code": 13, "message": "a child failed\nstack"})]
    with pytest.raises(StepFailedError) as caught:
        run_command(wait, run_id)
    assert str(caught.value) == f"run {run_id} failed at train_vae: OOMKilled; {released.host}/#/runs/details/{run_id}"


def test_the_message_of_a_failed_step_is_told(released: Any, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    released.script = [look("FAILED", task("train-vae", "FAILED", "00:01", "00:05", error={"message": "OOMKilled\nstack"}))]
    with pytest.raises(StepFailedError):
        wait(run_id)
    assert "step train_vae: failed: OOMKilled\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "end", [look("CANCELED"), look("FAILED", state_history=[{"state": "RUNNING"}, {"state": "CANCELING"}, {"state": "FAILED"}])]
)
def test_a_terminated_run_was_canceled(released: Any, run_id: str, run_command: RunCommand, end: dict[str, Any]) -> None:
    released.script = [end]
    with pytest.raises(StepFailedError, match=f"^run {run_id} was canceled; http"):
        run_command(wait, run_id)


def test_the_steps_of_a_run_from_a_file_are_told(kfp: Any, run_id: str, compiled: Path, run_command: RunCommand) -> None:
    run_command(submit, "--file", compiled)
    of_file = list(kfp.store.runs)[-1]
    kfp.script = [look("SUCCEEDED", task("gate", "SUCCEEDED", "00:00", "00:07"))]
    assert lines(run_command(wait, of_file), of_file) == ["step gate: succeeded in 7 s", "run RUN succeeded"]


def test_the_steps_of_a_version_that_is_gone_are_told(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.store.versions.clear()
    released.script = [look("SUCCEEDED", task("train-dit", "SKIPPED", "00:00", "00:00"), task("root", "SUCCEEDED", "00:00", "00:07"))]
    assert lines(run_command(wait, run_id), run_id) == ["step train_dit: cached", "run RUN succeeded"]


@pytest.mark.parametrize("kind", [500, 503, 401, 429, "reset", "page", "garbage"])
def test_an_outage_is_survived(released: Any, run_id: str, run_command: RunCommand, kind: int | str) -> None:
    looks = iter((1, 2))

    def break_down_after_a_look(request: Any) -> None:
        if request.method == "GET" and request.path.endswith(run_id) and next(looks, 0) == 2:
            released.break_down(kind, times=3)

    released.before_answer = break_down_after_a_look
    released.script = [look("RUNNING", task("gate", "RUNNING", "00:00")), look("SUCCEEDED", task("gate", "SUCCEEDED", "00:00", "00:09"))]
    told = lines(run_command(wait, run_id), run_id)
    assert told[0] == "step gate: running"
    assert told[1].endswith("; trying again")
    assert told[2:] == ["the server is back", "step gate: succeeded in 9 s", "run RUN succeeded"]


def test_a_restart_of_the_server_is_survived(released: Any, run_id: str, run_command: RunCommand) -> None:
    def restart() -> None:
        released.stop()
        time.sleep(0.2)
        released.script = [look("SUCCEEDED")]
        released.start()

    timer = threading.Timer(0.2, restart)
    timer.start()
    told = lines(run_command(wait, run_id), run_id)
    timer.join()
    assert told[0].endswith("trying again")
    assert told[1:] == ["the server is back", "run RUN succeeded"]


def test_a_server_that_stays_away_is_given_up(released: Any, run_id: str, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "OUTAGE_S", 0.1)
    released.break_down(503, path=run_id)
    with pytest.raises(ServerError, match=rf"for 0 s now; `lavin wait {run_id}` tries again"):
        run_command(wait, run_id)


def test_a_token_that_is_refused_at_once_is_not_tried_again(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.break_down(403, path=run_id)
    with pytest.raises(InputError, match="does not let you do this"):
        run_command(wait, run_id)
    assert len(released.sent("GET", run_id)) == 1


def test_a_run_that_there_is_not_is_one_line(released: Any, run_id: str, run_command: RunCommand) -> None:
    with pytest.raises(InputError, match=r"^run no-such-run: .* has no such run$"):
        run_command(wait, "no-such-run")


def test_a_run_that_is_not_over_in_time_goes_on(released: Any, run_id: str, run_command: RunCommand) -> None:
    with pytest.raises(StepFailedError, match=f"is not over yet and goes on; `lavin wait {run_id}` follows it again"):
        run_command(wait, run_id, "--timeout", "1s")
    assert not any("terminate" in request.path for request in released.requests)


def test_time_is_up_during_an_outage_as_well(released: Any, run_id: str, run_command: RunCommand) -> None:
    released.break_down(503, path=run_id)
    with pytest.raises(StepFailedError, match="is not over yet and goes on"):
        run_command(wait, run_id, "--timeout", "1s")


def test_an_interrupt_leaves_the_run_running_and_says_how_to_go_on(
    released: Any, run_id: str, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", interrupt)
    result = run_command(wait, run_id)
    assert result.exit_code == INTERRUPTED
    assert lines(result, run_id)[-1].startswith("run RUN goes on; `lavin wait RUN` follows it again")
    assert {request.method for request in released.sent("GET", run_id)} == {"GET"}
    assert not any("terminate" in request.path for request in released.requests)


def test_a_run_that_does_not_say_what_it_runs_is_followed(released: Any, run_id: str, run_command: RunCommand) -> None:
    del released.store.runs[run_id]["pipeline_version_reference"]
    released.script = [look("SUCCEEDED", task("gate", "SUCCEEDED", "00:00", "00:07"))]
    assert lines(run_command(wait, run_id), run_id) == ["step gate: succeeded in 7 s", "run RUN succeeded"]
