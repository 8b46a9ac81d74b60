from dataclasses import replace
from pathlib import Path

import pytest

from components.launcher.settings import ONE_PROCESS, JobSettings, Platform, load_platform
from components.run_request import NOWHERE, RunRequest, evaluation_job, run_folder
from lavin_dit.errors import InputError
from lavin_dit.presets import DIT_PRESETS

TINY = (Path(__file__).parents[1] / "tiny.yaml").read_text()
REQUEST = RunRequest(
    params=TINY,
    recipe="laptop",
    overrides=[],
    model_size="recipe",
    stage="recipe",
    data_repository="",
    data_revision="",
    raw="data/raw",
    launcher="pytorchjob",
    nodes=2,
    min_nodes=0,
    processes_per_node=4,
    accelerator="cpu",
)


def test_nothing_chosen_is_the_recipe_as_it_is() -> None:
    assert REQUEST.config().train_dit.shape == DIT_PRESETS["tiny"]
    assert REQUEST.config().promote.stage == "production"


def test_what_is_chosen_is_put_over_the_recipe() -> None:
    config = replace(REQUEST, model_size="0.1B", stage="staging", overrides=["train_dit.steps=7"]).config()
    assert config.train_dit.shape == DIT_PRESETS["0.1B"]
    assert config.promote.stage == "staging"
    assert config.train_dit.steps == 7


def test_a_recipe_is_taken_by_name_where_no_text_is_given() -> None:
    assert replace(REQUEST, params="").config().train_dit.shape == DIT_PRESETS["laptop"]


def test_promoting_to_nowhere_leaves_the_configuration_alone() -> None:
    assert replace(REQUEST, stage=NOWHERE).config() == REQUEST.config()


def test_a_job_has_a_fixed_size_unless_fewer_nodes_are_allowed() -> None:
    assert REQUEST.job() == JobSettings(launcher="pytorchjob", nodes=2, min_nodes=2, processes=4, accelerator="cpu")
    assert replace(REQUEST, min_nodes=1).job().min_nodes == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"nodes": 0}, "nodes is 0: input should be greater than or equal to 1"),
        ({"launcher": "slurm"}, "launcher is 'slurm': input should be 'local', 'pytorchjob' or 'trainjob'"),
        ({"min_nodes": 3}, r"min_nodes is 3: must be at most nodes \(2\)"),
        ({"launcher": "local"}, "nodes is 2: must be 1 with launcher local"),
        ({"launcher": "trainjob", "min_nodes": 1}, r"min_nodes is 1: must equal nodes \(2\) with launcher trainjob"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(REQUEST, **changes).job()  # type: ignore[arg-type]


def with_device() -> Platform:
    platform = load_platform()
    device = platform.accelerators["cpu"].model_copy(update={"resource": "nvidia.com/gpu"})
    return platform.model_copy(update={"accelerators": {**platform.accelerators, "gpu": device}})


def test_evaluation_gets_a_job_of_one_process_only_where_it_needs_a_device() -> None:
    assert evaluation_job(REQUEST.job(), with_device()) == ONE_PROCESS
    job = evaluation_job(replace(REQUEST, accelerator="gpu").job(), with_device())
    assert job == JobSettings(launcher="pytorchjob", nodes=1, min_nodes=1, processes=1, accelerator="gpu")
    local = replace(REQUEST, launcher="local", nodes=1, accelerator="gpu")
    assert evaluation_job(local.job(), with_device()) == ONE_PROCESS


def test_the_clusters_repository_stands_in_where_a_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIN_DATA_REPOSITORY", "https://git.example/data.git")
    assert REQUEST.repository() == ""
    assert replace(REQUEST, data_revision="v1").repository() == "https://git.example/data.git"
    assert replace(REQUEST, data_revision="v1", data_repository="/mine").repository() == "/mine"


def test_every_run_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)
    assert run_folder(Path("w")) == Path("w/runs/local")
    monkeypatch.setenv("LAVIN_RUN_ID", "7f")
    assert run_folder(Path("w")) == Path("w/runs/7f")
