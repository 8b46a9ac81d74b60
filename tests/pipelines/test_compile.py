from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components.launcher.settings import LAUNCHERS, load_platform
from components.recipes import recipes
from components.run_request import MODEL_SIZES, STAGES
from components.steps import STEPS
from lavin_dit.errors import InputError
from pipelines.compile import Compiled, compile_for, compile_pipeline, local_text

IMAGE = "registry.example/lavin@sha256:0123"
CACHED = {"prepare", "train_vae", "train_dit", "evaluate", "export", "gate"}
RETRIED = {"prepare", "train_vae", "train_dit", "evaluate", "export"}
SECRETS = {"resolve": {"lavin-object-store", "lavin-git"}, "prepare": {"lavin-object-store"}}


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_for(IMAGE, volume="shared")


@pytest.fixture(scope="module")
def document(compiled: Compiled) -> dict[str, Any]:
    return compiled.pipeline


def all_tasks(document: dict[str, Any]) -> dict[str, Any]:
    """Every component's task, wherever it is nested."""
    dags = [document["root"]["dag"], *(part["dag"] for part in document["components"].values() if "dag" in part)]
    tasks = {name.replace("-", "_"): task for dag in dags for name, task in dag["tasks"].items()}
    return {name: task for name, task in tasks.items() if not name.startswith(("condition", "exit_handler"))}


def tasks_of(document: dict[str, Any]) -> dict[str, Any]:
    """Every step's task."""
    return {name: task for name, task in all_tasks(document).items() if name != "conclude"}


def executors(compiled: Compiled) -> dict[str, Any]:
    """What only Kubernetes reads of each component."""
    found = compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-").replace("-", "_"): executor for name, executor in found.items()}


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


def test_what_is_written_is_a_valid_pipeline_and_a_valid_platform(tmp_path: Path) -> None:
    compile_pipeline(IMAGE, tmp_path / "deep" / "pipeline.yaml")
    pipeline, platform = yaml.safe_load_all((tmp_path / "deep" / "pipeline.yaml").read_text())
    assert json_format.ParseDict(pipeline, PipelineSpec()).pipeline_info.name == "lavin-dit"
    spec = json_format.ParseDict(platform, PlatformSpec())
    for executor in spec.platforms["kubernetes"].deployment_spec.executors.values():
        json_format.ParseDict(json_format.MessageToDict(executor), KubernetesExecutorConfig())


def test_the_same_pipeline_is_the_same_text(compiled: Compiled) -> None:
    assert compile_for(IMAGE, volume="shared").text() == compiled.text()


def test_an_image_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="--image: must name"):
        compile_for(" ")


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
    dags = [part["dag"] for part in document["components"].values() if "dag" in part]
    policies = [task["triggerPolicy"] for dag in dags for task in dag["tasks"].values() if "triggerPolicy" in task]
    # kfp.local resolves no condition on a named output, so that the gate alone decides, on the stage too.
    assert [policy["condition"] for policy in policies] == ["inputs.parameter_values['pipelinechannel--gate-Output'] == 'promote'"]


def test_the_outcome_is_recorded_however_the_steps_end(document: dict[str, Any]) -> None:
    task = document["root"]["dag"]["tasks"]["conclude"]
    assert task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert task["dependentTasks"] == ["exit-handler-1"]
    assert task["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_what_depends_on_the_world_is_never_cached(document: dict[str, Any]) -> None:
    cached = {name for name, task in all_tasks(document).items() if task["cachingOptions"].get("enableCache", False)}
    assert cached == CACHED


def test_what_can_change_a_step_is_among_its_inputs_and_nothing_else(document: dict[str, Any]) -> None:
    parameters = {name: set(task["inputs"]["parameters"]) for name, task in tasks_of(document).items()}
    always = {"section", "code", "workspace"}
    assert {name: parameters[name] - always for name in CACHED} == {
        "prepare": {"data_hash"},
        "train_vae": {"job"},
        "train_dit": {"job"},
        "evaluate": {"job"},
        "export": set(),
        "gate": {"rival", "stage"},
    }
    assert all(always <= parameters[name] for name in CACHED)


def test_every_step_runs_in_the_image_and_installs_nothing(document: dict[str, Any]) -> None:
    containers = [executor["container"] for executor in document["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {IMAGE}
    assert {entry["value"] for container in containers for entry in container["env"] if entry["name"] == "LAVIN_IMAGE"} == {IMAGE}
    assert not any("pip install" in part for container in containers for part in container["command"])


def test_every_step_is_on_the_volume_and_runs_as_the_images_user(compiled: Compiled) -> None:
    assert set(executors(compiled)) == {*STEPS, "conclude"}
    for executor in executors(compiled).values():
        mount = {"constant": "shared", "mountPath": "/workspace", "pvcNameParameter": {"runtimeValue": {"constant": "shared"}}}
        assert executor["pvcMount"] == [mount]
        assert executor["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert executor["podMetadata"]["labels"] == {"app.kubernetes.io/part-of": "lavin", "lavin.dev/role": "step"}


def test_only_what_reads_tracked_data_sees_a_secret(compiled: Compiled) -> None:
    seen = {
        name: {entry["secretName"] for kind in ("secretAsEnv", "secretAsVolume") for entry in executor.get(kind, [])}
        for name, executor in executors(compiled).items()
    }
    assert {name: secrets for name, secrets in seen.items() if secrets} == SECRETS


def test_kfps_own_launcher_does_not_take_the_keys_for_its_store(compiled: Compiled) -> None:
    keys = [
        key["envVar"] for executor in executors(compiled).values() for entry in executor.get("secretAsEnv", []) for key in entry["keyToEnv"]
    ]
    assert keys
    assert all(key.startswith("LAVIN_AWS_") for key in keys)


def test_what_a_second_try_can_mend_is_tried_again_with_back_off(document: dict[str, Any]) -> None:
    policies = {name: task["retryPolicy"] for name, task in all_tasks(document).items() if "retryPolicy" in task}
    assert set(policies) == RETRIED
    assert all(policy["maxRetryCount"] == 2 and policy["backoffFactor"] == 2.0 for policy in policies.values())
    assert {policy["backoffDuration"] for policy in policies.values()} == {"30s"}


def test_every_step_has_a_deadline_later_than_the_launchers_own(compiled: Compiled) -> None:
    deadlines = {name: int(executor["activeDeadlineSeconds"]) for name, executor in executors(compiled).items()}
    assert all(deadlines.values())
    assert min(deadlines[name] for name in ("train_vae", "train_dit")) > load_platform().deadline_s


def test_every_parameter_has_help_and_a_default_that_runs(document: dict[str, Any]) -> None:
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert all(len(parameter["description"]) > 20 and "defaultValue" in parameter for parameter in parameters.values())
    assert not any("\n" in parameter["description"] for parameter in parameters.values())


def test_closed_parameters_are_drop_downs_that_hold_their_default(document: dict[str, Any]) -> None:
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert {name: tuple(parameter["literals"]) for name, parameter in parameters.items() if "literals" in parameter} == {
        "recipe": tuple(sorted(recipes())),
        "model_size": MODEL_SIZES,
        "launcher": LAUNCHERS,
        "accelerator": tuple(load_platform().accelerators),
        "stage": STAGES,
    }
    assert all(parameter["defaultValue"] in parameter["literals"] for parameter in parameters.values() if "literals" in parameter)


def test_every_step_has_a_name_for_people(document: dict[str, Any]) -> None:
    names = [task["taskInfo"]["name"] for task in all_tasks(document).values()]
    assert len(set(names)) == len(STEPS) + 1
    assert all(name[0].isupper() for name in names)


def test_a_local_run_neither_waits_to_try_a_mistake_again_nor_asks_for_resources() -> None:
    document = yaml.safe_load(local_text())
    assert not any("retryPolicy" in task for task in all_tasks(document).values())
    assert not any("resources" in executor["container"] for executor in document["deploymentSpec"]["executors"].values())
