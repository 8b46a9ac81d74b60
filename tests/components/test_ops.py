import inspect
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components import ops
from components.folders import read_json
from components.op_bodies import flat_metrics
from components.steps import STEPS, load_step
from lavin_dit.config import SECTIONS, load_config, section_from_json

TINY = Path(__file__).parents[1] / "tiny.yaml"
PARAMETERS = {"params", "recipe", "overrides", "section", "data_hash", "store", "processes"}
SHOWN_BY_THE_UI = {"evaluate": {"metrics": "system.Metrics", "report": "system.HTML", "summary": "system.Markdown"}}


def component(step: str) -> Any:
    return getattr(ops, step)


@pytest.mark.parametrize("step", STEPS)
def test_an_op_reads_and_writes_what_its_step_does(step: str) -> None:
    spec = component(step).component_spec
    assert set(spec.inputs) - PARAMETERS == set(load_step(step).inputs)
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


@pytest.mark.parametrize("step", STEPS)
def test_an_ops_body_is_one_import_and_one_call(step: str) -> None:
    source = inspect.getsource(component(step).python_func)
    assert source.count("    from components.op_bodies import ") == 1
    assert source.count("run_") - source.count("import run_") == 1


@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_installed_when_an_op_runs(step: str) -> None:
    assert "pip install" not in " ".join(component(step).component_spec.implementation.container.command)


def test_resolve_hands_over_every_section_in_order_and_the_data_hash() -> None:
    outputs = [name for name in component("resolve").component_spec.outputs if name != "plan"]
    assert outputs == [*SECTIONS, "data_hash"]


def test_the_metrics_of_the_ui_are_flat_numbers() -> None:
    entry = {"metric": "abs_rel", "model": {"abs_rel": 0.5, "delta1": None}, "query_unchanged": {"abs_rel": 1.0}}
    document = {"tasks": {"depth": entry}, "tasks_beating_baselines": 1, "num_tasks": 1}
    assert flat_metrics(document) == {"depth/abs_rel": 0.5, "tasks_beating_baselines": 1}


def test_the_first_two_ops_run_as_kfp_calls_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.op_bodies.configure_logging", lambda: None)
    monkeypatch.setattr("components.op_bodies.stop_when_nobody_reads", lambda: None)
    plan, shards = dsl.Artifact(uri=str(tmp_path / "plan")), dsl.Dataset(uri=str(tmp_path / "shards"))
    overrides = ["prepare.num_train_scenes=3"]
    raw = str(tmp_path / "raw")
    resolved = ops.resolve.python_func(params=TINY.read_text(), recipe="", overrides=overrides, raw=raw, plan=plan)
    sections, data_hash = resolved[:-1], resolved[-1]
    config = load_config(TINY, overrides)
    assert [section_from_json(step, text) for step, text in zip(SECTIONS, sections, strict=True)] == [
        getattr(config, step) for step in SECTIONS
    ]
    ops.prepare.python_func(section=sections[0], raw=raw, data_hash=data_hash, store=str(tmp_path / "store"), shards=shards)
    made = Path(read_json(tmp_path / "shards" / "location.json")["folder"])
    assert made.parent == tmp_path / "store"
    assert read_json(made / "manifest.json")["tasks"]["depth"] == {"train": 3, "test": 4}
