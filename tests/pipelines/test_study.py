"""The study on a tiny configuration: as a pipeline of this machine, killed and continued on the way; compiled; and as DVC experiments."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components import ops
from components.folders import read_json
from components.study import NUM_PAIRS, SIZES
from lavin_dit.config import load_config, parse_config
from lavin_dit.errors import InputError
from pipelines.compile import compile_for, local_text

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"
PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
OPTIONS = (
    "--params params.yaml --size 1x24 --size 2x48 --pairs 2 --set prepare.tasks=[depth,foreground,edges] "
    "--set 'train_dit.task_weights={foreground: 0.0}'"
)
STUDY = f"lavin study {OPTIONS}"
SHARED = {"resolve", "prepare", "train_vae", "train_dit", "evaluate", "conclude"}
OWN = {"vary", "gather", "compare"}


class Project(NamedTuple):
    """A working folder in which a study was killed and run again, and what the second run said."""

    folder: Path
    said: str

    @property
    def trends(self) -> Path:
        return self.folder / "runs" / "study" / "runs" / "local" / "trends"


def call(folder: Path, command: str, *, code: int = 0) -> str:
    done = subprocess.run(shlex.split(command), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def is_at_work(folder: Path) -> bool:
    """Whether any step's process mentions this folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_text(errors="replace"))
        except OSError:
            # It ended in the meantime.
            continue
    return any(str(folder) in line and "executor_main" in line for line in lines)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A study that was killed while its second model trained, and run again, with another number of pairs, to its end."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(TINY, folder / "params.yaml")
    command = [str(PROGRAMS / "lavin"), *shlex.split(STUDY)[1:]]
    first = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert first.stdout is not None
    started = (line for line in first.stdout if line.startswith("step train_dit: started"))
    assert [next(started, ""), next(started, "")] == ["step train_dit: started\n"] * 2
    first.send_signal(signal.SIGKILL)
    first.communicate()
    end = time.monotonic() + 30
    while is_at_work(folder) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_at_work(folder), "a step outlived its study"
    return Project(folder, call(folder, f"{STUDY} --pairs 0"))


def steps(said: str) -> list[str]:
    return re.findall(r"^step (\w+): started$", said, re.MULTILINE)


def test_a_killed_study_continues_with_what_was_finished_and_trains_nothing_for_more_pairs(project: Project) -> None:
    assert re.findall(r"^step (\w+): already done", project.said, re.MULTILINE) == ["prepare", "train_vae", "train_dit", "evaluate"]
    assert steps(project.said) == ["evaluate", "train_dit", "evaluate", "evaluate"]


def test_a_study_ends_with_its_trends(project: Project) -> None:
    document = read_json(project.trends / "trends.json")
    assert [model["size"] for model in document["models"]] == ["1x24", "2x48"]
    assert document["num_pairs"] == [0, 2]
    assert {task: entry["held_out"] for task, entry in document["tasks"].items()} == {"depth": False, "edges": False, "foreground": True}
    assert (project.trends / "loss.png").is_file()
    assert "held out  foreground" in project.said
    assert (project.trends / "summary.md").read_text() in project.said


def test_the_rates_follow_the_width_and_the_data_are_the_same(project: Project) -> None:
    small, large = read_json(project.trends / "trends.json")["models"]
    assert small["learning_rate"] == pytest.approx(2**0.5 * large["learning_rate"])
    store = project.folder / "runs" / "study" / "store"
    assert len(list(store.glob("dit-*"))) == 2
    assert len(list(store.glob("evaluation-*"))) == 4
    assert len(list(store.glob("vae-*"))) == len(list(store.glob("shards-*"))) == 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--size 2x50", r"lavin: error: sizes holds 2x50: its width must be a multiple of 12"),
        ("--pairs 3", r"lavin: error: num_pairs holds 3: must be .* from 0 to evaluate\.sampling\.num_pairs \(2\)"),
        ("--name ../x", r"lavin: error: --name \.\./x: must be one plain name"),
        ("--recipe study", r"lavin: error: --recipe study and --params params\.yaml"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_done(more: str, sentence: str, tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "params.yaml")
    said = call(tmp_path, f"{STUDY} {more}", code=2)
    assert re.fullmatch(sentence + ".*\n", said)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("more", ["", "--params params.yaml --seed 7", "--params params.yaml --set train_dit.steps=2"])
def test_experiments_that_would_not_hold_what_was_asked_for_are_refused(more: str, tmp_path: Path) -> None:
    shutil.copy(TINY, tmp_path / "params.yaml")
    said = call(tmp_path, f"lavin study --dvc --size 2x48 --pairs 0 {more}", code=2)
    assert re.fullmatch(r"lavin: error: --dvc: experiments begin with params\.yaml, which says something else: .*\n", said)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return compile_for("registry.example/lavin@sha256:0123", volume="shared", pipeline="study").pipeline


def tasks_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    dags = [document["root"]["dag"], *(part["dag"] for part in document["components"].values() if "dag" in part)]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


def test_the_study_is_a_valid_pipeline(document: dict[str, Any]) -> None:
    spec = json_format.ParseDict(document, PipelineSpec())
    assert spec.pipeline_info.name == "lavin-dit-study"


def test_its_steps_are_those_of_a_run_and_three_of_its_own(document: dict[str, Any]) -> None:
    names = {name.removeprefix("exec-").replace("-", "_") for name in document["deploymentSpec"]["executors"]}
    assert names == SHARED | OWN
    run = compile_for("registry.example/lavin@sha256:0123", volume="shared").pipeline
    for name in SHARED:
        label = name.replace("_", "-")
        assert document["components"][f"comp-{label}"] == run["components"][f"comp-{label}"]
        assert document["deploymentSpec"]["executors"][f"exec-{label}"] == run["deploymentSpec"]["executors"][f"exec-{label}"]
    assert all(hasattr(ops, name) for name in OWN)


def test_sizes_and_pairs_are_loops_one_inside_the_other(document: dict[str, Any]) -> None:
    loops = {name: task for name, task in tasks_of(document).items() if "parameterIterator" in task}
    assert len(loops) == 2
    bodies = [set(document["components"][task["componentRef"]["name"]]["dag"]["tasks"]) for task in loops.values()]
    outer, inner = sorted(bodies, key=len, reverse=True)
    assert inner == {"evaluate"}
    assert outer - set(loops) == {"train-dit", "gather"}
    # A cluster's job is named after its run and step.
    assert {task["iteratorPolicy"]["parallelismLimit"] for task in loops.values()} == {1}


def test_the_recipe_the_sizes_and_the_pairs_are_its_parameters(document: dict[str, Any]) -> None:
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert parameters["recipe"]["defaultValue"] == "study"
    assert "study" in parameters["recipe"]["literals"]
    assert (parameters["sizes"]["defaultValue"], parameters["num_pairs"]["defaultValue"]) == (list(SIZES), list(NUM_PAIRS))
    assert all(len(parameter["description"]) > 20 for parameter in parameters.values())


def test_a_mistake_in_the_sizes_is_told_before_data_are_prepared(document: dict[str, Any]) -> None:
    assert "vary" in tasks_of(document)["prepare"]["dependentTasks"]


def test_a_pipeline_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="--pipeline other: must be one of lavin, study"):
        local_text("other")


def test_the_study_queues_as_dvc_experiments_that_hold_its_parameters(tmp_path: Path) -> None:
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(TINY, tmp_path / "params.yaml")
    for command in (
        "git init --quiet",
        "git config user.name tester",
        "git config user.email tester@localhost",
        "dvc init --quiet",
        "dvc config core.analytics false",
        "git add --all",
        "git commit --quiet --message start",
    ):
        call(tmp_path, command)
    commands = call(tmp_path, "lavin study --params params.yaml --dvc --size 1x24 --size 2x48 --pairs 0").splitlines()
    for command in commands:
        call(tmp_path, command)
    queued = call(tmp_path, "dvc queue status")
    assert re.findall(r"study-\S+", queued) == ["study-1x24-0-pairs", "study-2x48-0-pairs"]
    newest = parse_config(call(tmp_path, "git show refs/exps/celery/stash:params.yaml"))
    before = load_config(TINY)
    assert newest.evaluate.sampling.num_pairs == 0
    assert newest.train_dit == before.train_dit
    (oldest,) = re.findall(r"(\w+) ", call(tmp_path, "git reflog show refs/exps/celery/stash").splitlines()[1])[:1]
    small = yaml.safe_load(call(tmp_path, f"git show {oldest}:params.yaml"))["train_dit"]
    assert small["shape"] == {"depth": 1, "dim": 24, "num_heads": 2, "kv_group": 2}
    assert small["optimizer"]["learning_rate"] == pytest.approx(2**0.5 * before.train_dit.optimizer.learning_rate)
