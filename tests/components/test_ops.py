import inspect
import re
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components import ops
from components.folders import read_json
from components.launcher.settings import JobSettings, load_platform
from components.outcome import flat_metrics
from components.run_plan import check_job
from components.run_request import RunRequest
from components.steps import STEPS, load_step
from lavin_dit.config import SECTIONS, load_config, section_from_json
from lavin_dit.errors import InputError

TINY = Path(__file__).parents[1] / "tiny.yaml"
REQUESTED = {field.name for field in fields(RunRequest)}
PARAMETERS = {*REQUESTED, "section", "code", "data_hash", "workspace", "job", "rival", "stage"}
ON_THE_VOLUME = {"raw", "registry"}
"""Inputs of steps that lie on the shared volume, where KFP sees no artifact."""
PAGE = {"summary": "system.Markdown"}
SHOWN_BY_THE_UI = {
    "resolve": PAGE,
    "evaluate": {"metrics": "system.Metrics", "confusion": "system.ClassificationMetrics", "report": "system.HTML", **PAGE},
    "gate": PAGE,
    "promote": PAGE,
    "conclude": {"metrics": "system.Metrics", **PAGE},
}
REQUEST = RunRequest(
    params=TINY.read_text(),
    recipe="",
    overrides=[],
    model_size="recipe",
    stage="recipe",
    data_repository="",
    data_revision="",
    raw="",
    launcher="local",
    nodes=1,
    min_nodes=0,
    processes_per_node=1,
    accelerator="cpu",
)
RESOLVED = ["data_hash", "code", "rival", "job", "evaluation_job", "stage"]
OPS = (*STEPS, "conclude")


def component(step: str) -> Any:
    return getattr(ops, step)


@pytest.mark.parametrize("step", STEPS)
def test_an_op_reads_and_writes_what_its_step_does(step: str) -> None:
    spec = component(step).component_spec
    assert set(spec.inputs) - PARAMETERS == set(load_step(step).inputs) - ON_THE_VOLUME
    artifacts = {name for name, output in spec.outputs.items() if "@" in str(output.type)}
    assert artifacts - set(SHOWN_BY_THE_UI.get(step, {})) == set(load_step(step).outputs)


@pytest.mark.parametrize("step", SHOWN_BY_THE_UI)
def test_results_appear_as_artifacts_that_the_ui_draws(step: str) -> None:
    outputs = component(step).component_spec.outputs
    assert {name: str(outputs[name].type).split("@")[0] for name in SHOWN_BY_THE_UI[step]} == SHOWN_BY_THE_UI[step]


@pytest.mark.parametrize("step", STEPS)
def test_an_op_takes_its_section_and_nothing_else_of_the_configuration(step: str) -> None:
    inputs = set(component(step).component_spec.inputs)
    assert ("section" in inputs) == (step in SECTIONS)
    assert not inputs & set(SECTIONS)


@pytest.mark.parametrize("step", OPS)
def test_an_ops_body_is_imports_and_one_call(step: str) -> None:
    source = inspect.getsource(component(step).python_func)
    assert source.count("    from components.op_bodies import ") == 1
    assert source.count("run_") - source.count("import run_") - source.count("components.run_request") == 1


@pytest.mark.parametrize("step", OPS)
def test_nothing_is_installed_when_an_op_runs(step: str) -> None:
    assert "pip install" not in " ".join(component(step).component_spec.implementation.container.command)


def test_resolve_takes_all_that_a_person_may_ask_for() -> None:
    assert set(component("resolve").component_spec.inputs) == {*REQUESTED, "workspace"}


def test_resolve_hands_over_every_section_in_order_and_what_else_decides() -> None:
    outputs = [name for name in component("resolve").component_spec.outputs if name not in ("plan", "summary")]
    assert outputs == [*SECTIONS, *RESOLVED]


def test_the_metrics_of_the_ui_are_flat_numbers() -> None:
    entry = {"metric": "abs_rel", "model": {"abs_rel": 0.5, "delta1": None}, "query_unchanged": {"abs_rel": 1.0}}
    document = {"tasks": {"depth": entry}, "tasks_beating_baselines": 1, "num_tasks": 1}
    assert flat_metrics(document) == {"depth/abs_rel": 0.5, "tasks_beating_baselines": 1}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.op_bodies.configure_logging", lambda: None)
    monkeypatch.setattr("components.op_bodies.stop_when_nobody_reads", lambda: None)
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)


def resolved(folder: Path, **changes: Any) -> dict[str, str]:
    """What `resolve` hands over, as KFP calls it."""
    artifacts = {"plan": dsl.Artifact(uri=str(folder / "plan")), "summary": dsl.Markdown(uri=str(folder / "summary.md"))}
    request = asdict(REQUEST) | {"raw": str(folder / "raw")} | changes
    values = ops.resolve.python_func(**request, workspace=str(folder / "workspace"), **artifacts)
    return dict(zip([*SECTIONS, *RESOLVED], values, strict=True))


@pytest.mark.usefixtures("quiet")
def test_the_first_two_ops_run_as_kfp_calls_them(tmp_path: Path) -> None:
    overrides = ["prepare.num_train_scenes=3"]
    handed = resolved(tmp_path, overrides=overrides)
    config = load_config(TINY, overrides)
    assert [section_from_json(step, handed[step]) for step in SECTIONS] == [getattr(config, step) for step in SECTIONS]
    shards = dsl.Dataset(uri=str(tmp_path / "shards"))
    known = {name: handed[name] for name in ("code", "data_hash")}
    ops.prepare.python_func(section=handed["prepare"], **known, workspace=str(tmp_path / "workspace"), shards=shards)
    made = Path(read_json(tmp_path / "shards" / "location.json")["folder"])
    assert made.parent == tmp_path / "workspace" / "store"
    assert read_json(made / "manifest.json")["tasks"]["depth"] == {"train": 3, "test": 4}


@pytest.mark.usefixtures("quiet")
def test_resolve_leaves_a_page_and_the_plan_of_the_run(tmp_path: Path) -> None:
    handed = resolved(tmp_path, stage="none", overrides=["train_dit.steps=7"])
    assert handed["stage"] == "none"
    page = (tmp_path / "summary.md").read_text()
    assert "`train_dit.steps=7`" in page
    assert "| Promoted to | nothing |" in page
    assert read_json(tmp_path / "workspace" / "runs" / "local" / "plan" / "rival.json") == {"version": ""}


@pytest.mark.usefixtures("quiet")
def test_whole_numbers_may_come_as_the_floats_of_kfps_documents(tmp_path: Path) -> None:
    handed = resolved(tmp_path, nodes=1.0, min_nodes=0.0, processes_per_node=2.0)
    assert JobSettings.from_json(handed["job"]).processes == 2


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"overrides": ["train_dit.steps=0"]}, "train_dit.steps is 0: "),
        ({"processes_per_node": 5}, r"train_vae.batch_size is 4: must be at least the number of processes \(1 nodes x 5 processes"),
        ({"data_revision": "v1"}, "data_revision is v1: there is no repository to find it in"),
        ({"accelerator": "abacus"}, "accelerator is abacus: must be one of cpu"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        resolved(tmp_path, **changes)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(f"lavin: error: .*{sentence}.*\n", said)
    assert not (tmp_path / "workspace" / "runs").exists()


@pytest.mark.usefixtures("quiet")
def test_on_a_cluster_a_second_try_repeats_the_mistakes_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVIN_RUN_ID", "7f")
    for _ in range(2):
        with pytest.raises(SystemExit):
            resolved(tmp_path, nodes=0, launcher="pytorchjob")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(re.escape(first) + r" \(not tried again for another \d+ s\)", second)


def test_what_asks_for_a_device_that_is_too_small_is_refused() -> None:
    platform = load_platform()
    small = platform.accelerators["cpu"].model_copy(update={"resource": "nvidia.com/gpu", "memory_gib": 4.0})
    config = load_config(TINY, ["train_dit.shape=1.0B"])
    job = JobSettings(launcher="pytorchjob", nodes=1, min_nodes=1, processes=1, accelerator="small")
    with pytest.raises(InputError, match=r"train_dit needs about \d+\.\d GiB .* accelerator small has 4: choose a smaller model_size"):
        check_job(config, job, platform.model_copy(update={"accelerators": {"small": small}}))


def test_what_is_split_over_enough_processes_needs_no_larger_device() -> None:
    platform = load_platform()
    device = platform.accelerators["cpu"].model_copy(update={"resource": "nvidia.com/gpu", "memory_gib": 16.0})
    job = JobSettings(launcher="pytorchjob", nodes=1, min_nodes=1, processes=4, accelerator="device")
    for sharding, refused in (("none", True), ("full", False)):
        config = load_config(TINY, ["train_dit.shape=1.0B", f"train_dit.execution.sharding={sharding}"])
        with pytest.raises(InputError, match="train_dit needs about") if refused else nullcontext():
            check_job(config, job, platform.model_copy(update={"accelerators": {"device": device}}))
