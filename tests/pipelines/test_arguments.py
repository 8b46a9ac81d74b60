from pathlib import Path
from typing import Any

import pytest

from lavin_dit.errors import InputError
from pipelines.arguments import NAME_LENGTH, read_arguments, run_name
from pipelines.package import Package, read_package


@pytest.fixture(scope="module")
def package(compiled: Path) -> Package:
    return read_package(compiled)[1]


def pipeline_of(**parameters: dict[str, Any]) -> Package:
    """A pipeline with these declarations, and no step."""
    return Package({"pipelineInfo": {"name": "other"}, "root": {"inputDefinitions": {"parameters": parameters}}}, {})


def refusal(package: Package, *parameters: str, settings: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as caught:
        read_arguments(package, parameters, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("STRING", "7", "7"),
        ("STRING", "a=b\nc", "a=b\nc"),
        ("STRING", "", ""),
        ("NUMBER_INTEGER", "-7", -7),
        ("NUMBER_DOUBLE", "1e-3", 0.001),
        ("BOOLEAN", "True", True),
        ("BOOLEAN", "false", False),
        ("LIST", '["a", 1]', ["a", 1]),
        ("STRUCT", '{"a": {"b": null}}', {"a": {"b": None}}),
    ],
)
def test_a_text_becomes_a_value_of_the_declared_type(kind: str, text: str, value: object) -> None:
    read = read_arguments(pipeline_of(x={"parameterType": kind}), [f"x={text}"])
    assert read == {"x": value}
    assert type(read["x"]) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "allowed"),
    [
        ("NUMBER_INTEGER", "2.5", "a whole number"),
        ("NUMBER_INTEGER", "", "a whole number"),
        ("NUMBER_INTEGER", "1_000", "a whole number"),
        ("NUMBER_DOUBLE", "nan", "a finite number"),
        ("NUMBER_DOUBLE", "much", "a finite number"),
        ("BOOLEAN", "yes", "true or false"),
        ("LIST", "a,b", "a list as JSON"),
        ("LIST", '{"a": 1}', "a list as JSON"),
        ("LIST", "[NaN]", "a list as JSON"),
        ("STRUCT", "[]", "a dict as JSON"),
    ],
)
def test_a_text_of_another_type_is_refused_with_what_is_allowed(kind: str, text: str, allowed: str) -> None:
    assert refusal(pipeline_of(x={"parameterType": kind}), f"x={text}").startswith(f"--parameter x={text}: must be {allowed}")


def test_an_unknown_parameter_is_refused_with_those_that_there_are(package: Package) -> None:
    told = refusal(package, "node=2")
    assert told.startswith("--parameter node=2: the pipeline has no parameter node; it has accelerator, data_repository,")


def test_a_value_that_is_not_among_the_closed_ones_is_refused_with_them(package: Package) -> None:
    assert refusal(package, "launcher=mpi") == "--parameter launcher=mpi: must be one of local, pytorchjob, trainjob"


def test_what_is_no_pair_or_comes_twice_is_refused(package: Package) -> None:
    assert "must be NAME=VALUE" in refusal(package, "nodes")
    assert "must be NAME=VALUE" in refusal(package, "=2")
    assert "nodes is given twice" in refusal(package, "nodes=1", "nodes=2")
    assert "must be SECTION.KEY=VALUE" in refusal(package, settings=("steps=2",))


def test_a_parameter_without_default_must_be_given() -> None:
    declared = pipeline_of(x={"parameterType": "STRING"}, y={"parameterType": "STRING", "isOptional": True})
    assert "--parameter x=VALUE: must be given" in refusal(declared)


def test_a_long_value_is_shown_in_one_short_line(package: Package) -> None:
    assert len(refusal(package, "launcher=" + "line\n" * 200)) < 200


def test_settings_are_the_pipelines_overrides(package: Package) -> None:
    read = read_arguments(package, ['overrides=["evaluate.seed=1"]'], ["train_dit.steps=500", "train_vae.losses.kl=0.1"])
    assert read == {"overrides": ["evaluate.seed=1", "train_dit.steps=500", "train_vae.losses.kl=0.1"]}


def test_settings_of_a_pipeline_without_overrides_are_refused() -> None:
    assert "--set a.b=1: the pipeline has no parameter overrides; it has none" in refusal(pipeline_of(), settings=("a.b=1",))


def test_a_run_is_named_after_what_runs(package: Package) -> None:
    given = ["model_size=0.1B", "data_revision=main", "nodes=2", "processes_per_node=8"]
    arguments = read_arguments(package, given) | {"accelerator": "h100"}
    assert run_name(package, arguments, "v0.3.0") == "laptop 0.1B data@main pytorchjob 2x8 h100 · v0.3.0"


def test_a_run_of_defaults_is_named_after_them(package: Package) -> None:
    assert run_name(package, {}, "v0.3.0") == "laptop pytorchjob 1x1 cpu · v0.3.0"


def test_a_run_of_ones_own_parameters_stage_and_overrides_says_so(package: Package) -> None:
    arguments = read_arguments(package, ["params=a: 1\nb: 2", "stage=staging"], ["train_dit.steps=5"])
    assert run_name(package, arguments, "v1") == "own params pytorchjob 1x1 cpu to staging train_dit.steps=5 · v1"


def test_a_runs_name_is_short_and_keeps_the_version(package: Package) -> None:
    name = run_name(package, {"overrides": ["train_dit.steps=500"] * 20}, "v0.3.0")
    assert len(name) == NAME_LENGTH
    assert name.endswith("… · v0.3.0")


def test_a_run_of_another_pipeline_is_named_after_it() -> None:
    assert run_name(pipeline_of(x={"parameterType": "STRING"}), {}, "other.yaml") == "other · other.yaml"
