"""The table of steps, the stages of DVC, the KFP components and the DAG say the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.__main__ import default_folder
from components.steps import STEP_OF_OUTPUT, STEPS, load_step
from lavin_dit.config import SECTIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return stages


def test_every_step_is_a_stage_in_order(stages: dict[str, Any]) -> None:
    assert tuple(stages) == STEPS


def test_every_section_belongs_to_a_step() -> None:
    assert ("resolve", *SECTIONS) == STEPS


@pytest.mark.parametrize("step", SECTIONS)
def test_a_stage_runs_its_step_with_the_section_that_resolve_wrote(step: str, stages: dict[str, Any]) -> None:
    section = f"outputs/plan/{step}.json"
    assert stages[step]["cmd"] == f"python -m components {step} --section {section}"
    assert stages[step]["params"] == [step]
    assert section in stages[step]["deps"]


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_writes_what_its_step_writes(step: str, stages: dict[str, Any]) -> None:
    assert stages[step]["outs"] == [str(default_folder(name)) for name in load_step(step).outputs]


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_reads_what_its_step_reads(step: str, stages: dict[str, Any]) -> None:
    # The data stand behind their hash in data.json, and a registry changes by itself.
    read = {str(default_folder(name)) for name in load_step(step).inputs if name not in ("raw", "registry")}
    # Of a folder, a stage may depend on those files alone that its step reads: logs tell the time.
    parts = [Path(dep).parts for dep in stages[step].get("deps", []) if dep.startswith("outputs/") and not dep.startswith("outputs/plan/")]
    assert {"/".join(part[:2]) for part in parts} == read
    if step == "prepare":
        assert "outputs/plan/data.json" in stages[step]["deps"]


def test_resolve_runs_every_time_and_sees_all_parameters(stages: dict[str, Any]) -> None:
    assert stages["resolve"]["always_changed"] is True
    assert stages["resolve"]["params"] == list(SECTIONS)


def test_every_file_that_a_stage_depends_on_exists(stages: dict[str, Any]) -> None:
    sources = {dep for stage in stages.values() for dep in stage.get("deps", []) if not dep.startswith("outputs/")}
    assert [source for source in sorted(sources) if not (ROOT / source).exists()] == []


def test_metrics_and_plots_lie_in_what_stages_write(stages: dict[str, Any]) -> None:
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    files = [*document["metrics"], *(file for plot in document["plots"] for value in plot.values() for file in value["y"])]
    outputs = {out for stage in stages.values() for out in stage["outs"]}
    assert {str(Path(file).parent) for file in files} <= outputs


def test_an_output_is_ascribed_to_the_step_that_makes_it() -> None:
    made = {output: step for step in STEPS for output in load_step(step).outputs}
    assert {output: made[output] for output in STEP_OF_OUTPUT} == STEP_OF_OUTPUT
    assert set(load_step("export").inputs) == set(STEP_OF_OUTPUT)
