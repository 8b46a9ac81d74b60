from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components.recipes import recipes
from components.steps import STEPS
from pipelines.compile import compile_pipeline, pipeline_document

IMAGE = "registry.example/lavin@sha256:0123"
CACHED = {"prepare", "train_vae", "train_dit", "evaluate", "export"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return pipeline_document(IMAGE)


def tasks_of(document: dict[str, Any]) -> dict[str, Any]:
    """Every step's task, those behind the condition too."""
    dags = [document["root"]["dag"], *(part["dag"] for part in document["components"].values() if "dag" in part)]
    tasks = {name.replace("-", "_"): task for dag in dags for name, task in dag["tasks"].items()}
    return {name: task for name, task in tasks.items() if not name.startswith("condition")}


def producers(task: dict[str, Any]) -> set[str]:
    """The steps whose artifacts or parameters a task reads, directly or through the condition around it."""
    inputs = task["inputs"]
    direct = [
        value["taskOutputArtifact"]["producerTask"] for value in inputs.get("artifacts", {}).values() if "taskOutputArtifact" in value
    ]
    direct += [value["taskOutputParameter"]["producerTask"] for value in inputs["parameters"].values() if "taskOutputParameter" in value]
    outer = [*inputs.get("artifacts", {}).values(), *inputs["parameters"].values()]
    names = [value.get("componentInputArtifact", value.get("componentInputParameter", "")) for value in outer]
    through = [name.removeprefix("pipelinechannel--").rpartition("-")[0] for name in names if name.count("-") > 1]
    return {name.replace("-", "_") for name in [*direct, *through] if name}


def test_what_is_compiled_is_a_valid_pipeline(tmp_path: Path) -> None:
    compile_pipeline(IMAGE, tmp_path / "deep" / "pipeline.yaml")
    written = yaml.safe_load((tmp_path / "deep" / "pipeline.yaml").read_text())
    spec = json_format.ParseDict(written, PipelineSpec())
    assert spec.pipeline_info.name == "lavin-dit"


def test_the_dag_is_the_table_of_steps(document: dict[str, Any]) -> None:
    assert set(tasks_of(document)) == set(STEPS)


def test_the_edges_are_those_of_the_house(document: dict[str, Any]) -> None:
    assert {name: producers(task) - {"resolve"} for name, task in tasks_of(document).items()} == {
        "resolve": set(),
        "prepare": set(),
        "train_vae": {"prepare"},
        "train_dit": {"prepare", "train_vae"},
        "evaluate": {"prepare", "train_vae", "train_dit"},
        "export": {"prepare", "train_vae", "train_dit", "evaluate"},
        "gate": {"evaluate", "export"},
        "promote": {"export", "gate"},
    }


def test_every_step_gets_its_section_from_resolve(document: dict[str, Any]) -> None:
    for name, task in tasks_of(document).items():
        if name not in ("resolve", "promote"):
            assert task["inputs"]["parameters"]["section"]["taskOutputParameter"] == {"outputParameterKey": name, "producerTask": "resolve"}


def test_promotion_waits_for_the_gates_word(document: dict[str, Any]) -> None:
    conditions = [task["triggerPolicy"]["condition"] for task in document["root"]["dag"]["tasks"].values() if "triggerPolicy" in task]
    assert conditions == ["inputs.parameter_values['pipelinechannel--gate-Output'] == 'promote'"]


def test_what_depends_on_the_world_is_never_cached(document: dict[str, Any]) -> None:
    cached = {name for name, task in tasks_of(document).items() if task["cachingOptions"].get("enableCache", False)}
    assert cached == CACHED


def test_what_can_change_a_step_is_among_its_inputs_and_nothing_else(document: dict[str, Any]) -> None:
    parameters = {name: set(task["inputs"]["parameters"]) for name, task in tasks_of(document).items()}
    assert parameters["prepare"] == {"section", "raw", "data_hash", "store"}
    assert parameters["train_vae"] == parameters["train_dit"] == {"section", "store", "processes"}
    assert parameters["evaluate"] == parameters["export"] == {"section", "store"}


def test_every_step_runs_in_the_image_and_installs_nothing(document: dict[str, Any]) -> None:
    containers = [executor["container"] for executor in document["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {IMAGE}
    assert not any("pip install" in part for container in containers for part in container["command"])


def test_every_parameter_has_help_and_a_default_that_runs(document: dict[str, Any]) -> None:
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert list(parameters) == ["overrides", "params", "processes", "raw", "recipe", "registry", "store"]
    assert all(len(parameter["description"]) > 20 and "defaultValue" in parameter for parameter in parameters.values())
    assert parameters["recipe"]["defaultValue"] in recipes()


def test_every_step_has_a_name_for_people(document: dict[str, Any]) -> None:
    names = [task["taskInfo"]["name"] for task in tasks_of(document).values()]
    assert len(set(names)) == len(STEPS)
    assert all(name[0].isupper() for name in names)
