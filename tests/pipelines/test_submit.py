import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.entry import StepFailedError
from lavin_dit.errors import InputError
from pipelines import following
from pipelines.submit import submit

RunCommand = Callable[..., Any]


def refusal(*words: object, run: RunCommand) -> str:
    with pytest.raises(InputError) as caught:
        run(submit, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only_run(kfp: Any) -> dict[str, Any]:
    (run,) = kfp.store.runs.values()
    return dict(run)


def version_id(kfp: Any, name: str) -> str:
    return next(str(key) for key, version in kfp.store.versions.items() if version["name"] == name)


def test_a_run_of_the_latest_version_starts_and_is_named(released: Any, run_command: RunCommand) -> None:
    told = run_command(submit)
    run = only_run(released)
    assert told.stdout.splitlines() == [
        f"run {run['run_id']}: laptop pytorchjob 1x1 cpu · v0.3.0",
        f"{released.host}/#/runs/details/{run['run_id']}",
    ]
    assert told.stderr == ""
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version_id(released, "v0.3.0")
    assert run["runtime_config"] == {"parameters": {}}
    assert "service_account" not in run


def test_a_version_is_run_by_its_name(released: Any, run_command: RunCommand) -> None:
    run_command(submit, "--version", "v0.2.0")
    assert only_run(released)["pipeline_version_reference"]["pipeline_version_id"] == version_id(released, "v0.2.0")
    assert only_run(released)["display_name"].endswith("· v0.2.0")


def test_parameters_are_sent_in_the_declared_types(released: Any, run_command: RunCommand) -> None:
    options = ["-p", "nodes=2", "--param", "launcher=trainjob", "--parameter", "data_revision=main", "--set", "train_dit.steps=500"]
    run_command(submit, *options, "--service-account", "lavin-pipeline", "--name", "mine")
    run = only_run(released)
    expected = {"nodes": 2, "launcher": "trainjob", "data_revision": "main", "overrides": ["train_dit.steps=500"]}
    assert run["runtime_config"]["parameters"] == expected
    assert (run["service_account"], run["display_name"]) == ("lavin-pipeline", "mine")


@pytest.mark.parametrize("option", ["launcher=mpi", "nodes=two", "nods=2"])
def test_a_wrong_parameter_starts_no_run(released: Any, run_command: RunCommand, option: str) -> None:
    assert option in refusal("-p", option, run=run_command)
    assert released.store.runs == {}
    assert {request.method for request in released.requests} == {"GET"}


def test_a_wrong_parameter_of_a_file_is_refused_before_anything_is_sent(kfp: Any, compiled: Path, run_command: RunCommand) -> None:
    assert "launcher=mpi: must be one of" in refusal("--file", compiled, "-p", "launcher=mpi", run=run_command)
    assert kfp.requests == []


def test_a_file_is_run_without_an_upload(kfp: Any, compiled: Path, run_command: RunCommand) -> None:
    run_command(submit, "--file", compiled)
    run = only_run(kfp)
    pipeline, platform = yaml.safe_load_all(compiled.read_text())
    assert run["pipeline_spec"] == {"pipeline_spec": pipeline, "platform_spec": platform}
    assert run["display_name"].endswith(f"· {compiled.name}")
    assert kfp.store.versions == {}


def test_without_cache_every_step_of_the_version_is_to_be_run(released: Any, run_command: RunCommand) -> None:
    run_command(submit, "--no-cache")
    run = only_run(released)
    assert "pipeline_version_reference" not in run
    assert "enableCache" not in str(run["pipeline_spec"])
    assert set(run["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    assert run["display_name"].endswith("· v0.3.0")


def test_the_default_experiment_is_made_once(released: Any, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        run_command(submit)
    monkeypatch.setenv("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "ours")
    run_command(submit)
    assert [item["display_name"] for item in released.store.experiments.values()] == ["lavin-dit", "ours"]


def test_an_experiment_that_is_named_must_be_there(released: Any, run_command: RunCommand) -> None:
    assert "--experiment other: there is no such experiment; there are none" in refusal("--experiment", "other", run=run_command)
    run_command(submit)
    assert "there is no such experiment; there are lavin-dit" in refusal("--experiment", "other", run=run_command)
    next(iter(released.store.experiments.values()))["storage_state"] = "ARCHIVED"
    assert "was archived" in refusal("--experiment", "lavin-dit", run=run_command)


def test_on_a_server_of_several_users_the_experiment_is_in_ones_own_namespace(
    make_kfp: Callable[..., Any], compiled: Path, run_command: RunCommand
) -> None:
    kfp = make_kfp(multi_user=True)
    run_command(submit, "--file", compiled, "--host", kfp.host, "--namespace", "mine")
    assert [item["namespace"] for item in kfp.store.experiments.values()] == ["mine"]


def test_what_there_is_none_of_is_one_line(released: Any, run_command: RunCommand, compiled: Path) -> None:
    assert "--version v9: lavin-dit has no such version; newest: v0.3.0, v0.2.0" in refusal("--version", "v9", run=run_command)
    assert "does not go with --file" in refusal("--version", "v9", "--file", compiled, run=run_command)
    assert "--timeout 1h: goes with --wait" in refusal("--timeout", "1h", run=run_command)
    assert "must be a readable file" in refusal("--file", "absent.yaml", run=run_command)
    assert "--timeout 5: must be a whole number with a unit" in refusal("--wait", "--timeout", "5", run=run_command)


def test_a_version_whose_text_the_server_has_lost_is_refused(released: Any, run_command: RunCommand) -> None:
    for version in released.store.versions.values():
        del version["pipeline_spec"]
    assert "--version v0.3.0: " in refusal(run=run_command)


def test_without_the_pipeline_the_way_to_it_is_told(kfp: Any, run_command: RunCommand) -> None:
    assert "has no pipeline lavin-dit; `lavin upload` makes it" in refusal(run=run_command)


def test_what_the_server_refuses_is_told_in_its_words(released: Any, run_command: RunCommand) -> None:
    released.break_down(400, path="/runs", message="InvalidInputError: the service account is not allowed\ngoroutine 1")
    assert refusal(run=run_command).endswith("refused the request (400: InvalidInputError: the service account is not allowed)")


def test_a_run_may_be_waited_for(released: Any, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.01)
    released.script = [{"state": "RUNNING"}, {"state": "SUCCEEDED"}]
    told = run_command(submit, "--wait")
    assert told.stdout.splitlines()[-1] == f"run {only_run(released)['run_id']} succeeded"
    released.script = [{"state": "FAILED"}]
    with pytest.raises(StepFailedError, match=r"^run .* failed; http"):
        run_command(submit, "--wait")


def test_a_command_starts_without_kfp_and_prints_nothing_of_its_own(kfp: Any) -> None:
    """kfp takes seconds to import, and prints a banner and warnings."""
    code = (
        "import sys\n"
        "from pipelines.submit import submit\n"
        "from components.entry import clear_errors\n"
        "early = {'kfp', 'kfp_server_api', 'urllib3', 'torch'} & set(sys.modules)\n"
        "with clear_errors():\n"
        "    try:\n"
        "        submit()\n"
        "    finally:\n"
        "        print(sorted(early), 'kfp' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "[] False\n"
    assert done.stderr == f"lavin: error: {kfp.host} has no pipeline lavin-dit; `lavin upload` makes it\n"
