from collections.abc import Callable
from typing import Any

import pytest

from components.entry import StepFailedError
from lavin_dit.errors import InputError
from pipelines.connection import connect
from pipelines.schedule import schedule

RunCommand = Callable[..., Any]
NIGHTLY = ("--cron", "0 2 * * *")


def refusal(*words: object, run: RunCommand) -> str:
    with pytest.raises(InputError) as caught:
        run(schedule, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only(kfp: Any) -> dict[str, Any]:
    (item,) = kfp.store.recurring_runs.values()
    return dict(item)


def add_another_pipelines(kfp: Any, name: str) -> None:
    """A schedule that is not ours."""
    item = {"display_name": name, "recurring_run_id": "other", "pipeline_version_reference": {"pipeline_id": "other"}}
    kfp.store.recurring_runs["other"] = item


def test_a_schedule_by_cron_runs_the_latest_version(released: Any, run_command: RunCommand) -> None:
    told = run_command(schedule, *NIGHTLY)
    made = only(released)
    assert told.stdout.splitlines() == [
        "schedule lavin-dit: cron 0 0 2 * * *, enabled, at most 1 at once, lavin-dit v0.3.0",
        f"{released.host}/#/recurringrun/details/{made['recurring_run_id']}",
    ]
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert released.store.versions[made["pipeline_version_reference"]["pipeline_version_id"]]["name"] == "v0.3.0"
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")


def test_a_schedule_by_interval_takes_all_that_a_run_takes(released: Any, run_command: RunCommand) -> None:
    options = ["--version", "v0.2.0", "-p", "nodes=2", "--set", "a.b=1", "--service-account", "lavin-pipeline", "--name", "often"]
    told = run_command(schedule, "--every", "6h", *options, "--max-concurrency", "3", "--catchup", "--disabled")
    made = only(released)
    assert made["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}
    assert made["runtime_config"]["parameters"] == {"nodes": 2, "overrides": ["a.b=1"]}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"], made["service_account"]) == ("3", False, "DISABLE", "lavin-pipeline")
    assert "schedule often: every 6.0 h, disabled, at most 3 at once, nodes=2 overrides=['a.b=1'], lavin-dit v0.2.0\n" in told.stdout


def test_a_name_that_is_taken_is_refused_with_what_has_it(released: Any, run_command: RunCommand) -> None:
    run_command(schedule, *NIGHTLY)
    told = refusal("--every", "6h", run=run_command)
    assert told.startswith("--name lavin-dit: there is such a schedule (cron 0 0 2 * * *, enabled,")
    assert told.endswith("--replace puts this one in its place")
    assert only(released)["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}


def test_a_replacement_is_there_before_the_old_one_goes(released: Any, run_command: RunCommand) -> None:
    run_command(schedule, *NIGHTLY)
    old = only(released)["recurring_run_id"]
    released.requests.clear()
    assert run_command(schedule, "--every", "6h", "--replace").stdout.startswith("schedule lavin-dit replaced: every 6.0 h, enabled")
    assert only(released)["recurring_run_id"] != old
    changes = [request.method for request in released.requests if request.method != "GET"]
    assert changes == ["POST", "DELETE"]


def test_a_replacement_that_fails_leaves_the_old_one(released: Any, run_command: RunCommand) -> None:
    run_command(schedule, *NIGHTLY)
    before = only(released)
    assert "nods=2" in refusal("--every", "6h", "--replace", "-p", "nods=2", run=run_command)
    released.before_answer = lambda request: released.break_down(503, times=1) if request.method == "POST" else None
    with pytest.raises(StepFailedError, match="failed"):
        run_command(schedule, "--every", "6h", "--replace")
    assert only(released) == before


def test_an_old_one_that_cannot_be_deleted_is_said_to_be_there_and_goes_the_next_time(released: Any, run_command: RunCommand) -> None:
    run_command(schedule, *NIGHTLY)
    released.before_answer = lambda request: released.break_down(503, times=1) if request.method == "DELETE" else None
    with pytest.raises(StepFailedError, match=r"the new one is there, but the old one too \(.*503.*\); run the same again"):
        run_command(schedule, "--every", "6h", "--replace")
    assert len(released.store.recurring_runs) == 2
    released.before_answer = lambda _: None
    run_command(schedule, "--every", "6h", "--replace")
    assert only(released)["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}


def test_schedules_are_listed_by_name(released: Any, run_command: RunCommand) -> None:
    assert run_command(schedule, "--list").stdout == "there is no schedule of lavin-dit\n"
    for name in ("weekly", "nightly"):
        run_command(schedule, *NIGHTLY, "--name", name)
    add_another_pipelines(released, "other")
    listed = run_command(schedule, "--list").stdout.splitlines()
    assert [line.partition(": ")[0] for line in listed] == ["nightly", "weekly"]


def test_a_schedule_is_deleted_by_its_name(released: Any, run_command: RunCommand) -> None:
    run_command(schedule, *NIGHTLY, "--name", "nightly")
    assert "--delete nihgtly: there is no such schedule; there are nightly" in refusal("--delete", "nihgtly", run=run_command)
    assert run_command(schedule, "--delete", "nightly").stdout == "schedule nightly deleted\n"
    assert released.store.recurring_runs == {}


def test_another_pipelines_schedule_of_the_same_name_is_left_alone(released: Any, run_command: RunCommand) -> None:
    add_another_pipelines(released, "nightly")
    assert "there is no such schedule; there are none" in refusal("--delete", "nightly", run=run_command)
    run_command(schedule, *NIGHTLY, "--name", "nightly", "--replace")
    assert "other" in released.store.recurring_runs


def test_without_the_pipeline_there_is_nothing_to_list(kfp: Any, run_command: RunCommand) -> None:
    assert run_command(schedule, "--list").stdout == "there is no schedule of lavin-dit\n"


def test_on_a_server_of_several_users_the_list_is_of_ones_own_namespace(
    make_kfp: Callable[..., Any], run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp = make_kfp(multi_user=True)
    run_command(schedule, "--list", "--host", kfp.host, "--namespace", "mine")
    (request,) = kfp.sent("GET", "/recurringruns")
    assert request.query["namespace"] == "mine"


def test_what_makes_no_schedule_is_refused_before_anything_is_sent(released: Any, run_command: RunCommand) -> None:
    assert "takes one of --cron, --every, --list, --delete" in refusal(run=run_command)
    assert "takes one of" in refusal(*NIGHTLY, "--every", "6h", run=run_command)
    assert "takes one of" in refusal(*NIGHTLY, "--list", run=run_command)
    assert '--cron "0 25 * * *": 25 is no hour' in refusal("--cron", "0 25 * * *", run=run_command)
    assert "--every 6: must be a whole number with a unit" in refusal("--every", "6", run=run_command)
    assert "--every 30s: must be at least 60 seconds" in refusal("--every", "30s", run=run_command)
    assert released.requests == []


@pytest.mark.parametrize("number", ["0", "11"])
def test_more_runs_at_once_than_kfp_allows_are_refused(released: Any, run_command: RunCommand, number: str) -> None:
    assert run_command(schedule, *NIGHTLY, "--max-concurrency", number).exit_code == 2
    assert released.requests == []


def test_the_number_of_runs_at_once_goes_as_the_schema_has_it(released: Any, run_command: RunCommand) -> None:
    """kfp's own client sends a number, which the schema refuses."""
    run_command(schedule, *NIGHTLY)
    (request,) = released.sent("POST", "/recurringruns")
    definition = {"$ref": "#/definitions/v2beta1RecurringRun"}
    released.contract.check(request.body, definition)
    with pytest.raises(Exception, match="1 is not of type 'string'"):
        released.contract.check({**request.body, "max_concurrency": 1}, definition)
    assert connect(None, None, None).recurring_runs.recurring_run_service_list_recurring_runs().recurring_runs[0].max_concurrency == "1"
