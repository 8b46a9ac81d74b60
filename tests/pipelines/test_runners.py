"""The whole pipeline on a tiny configuration, under both runners of this machine, killed and continued on the way."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from PIL import Image

from components.folders import read_json
from components.steps import STEPS
from components.store import open_input

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"
PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "LAVIN_PROGRESS_SECONDS": "0.1"}
KEPT = ("prepare", "train_vae", "train_dit", "evaluate", "export")
CODE = ("components", "model", "dvc.yaml", ".dvcignore", ".gitignore")


class Project(NamedTuple):
    """A working folder in which the pipeline has run, and what the last run said."""

    folder: Path
    said: str

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "demo"


def call(folder: Path, command: str, *, code: int = 0) -> str:
    done = subprocess.run(shlex.split(command), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def steps_of(folder: Path) -> list[str]:
    """Command lines of step processes that mention this folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_text(errors="replace"))
        except OSError:
            # It ended in the meantime.
            continue
    return [line for line in lines if str(folder) in line and "executor_main" in line]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run that was killed while the J-DiT trained, and run again to its end."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(TINY, folder / "params.yaml")
    command = [str(PROGRAMS / "lavin"), "run"]
    first = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert first.stdout is not None
    assert any(line.startswith("step train_dit: started") for line in first.stdout)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    end = time.monotonic() + 30
    while steps_of(folder) and time.monotonic() < end:
        time.sleep(0.1)
    assert steps_of(folder) == [], "a step outlived its run"
    return Project(folder, call(folder, "lavin run"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same parameters under `dvc repro`, in a repository of its own."""
    folder = tmp_path_factory.mktemp("repository")
    for name in CODE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder / name)
    shutil.copy(TINY, folder / "params.yaml")
    call(folder, "git init --quiet")
    call(folder, "git config user.name tester")
    call(folder, "git config user.email tester@localhost")
    call(folder, "dvc init --quiet")
    call(folder, "dvc config core.analytics false")
    call(folder, "git add --all")
    call(folder, "git commit --quiet --message start")
    said = call(folder, "dvc repro")
    call(folder, "git add --all")
    call(folder, "git commit --quiet --message run")
    return Project(folder, said)


def test_a_killed_run_continues_with_what_was_finished(project: Project) -> None:
    for step in ("prepare", "train_vae"):
        assert f"step {step}: already done" in project.said
    for step in ("train_dit", "evaluate", "export", "gate", "promote"):
        assert f"step {step}: finished" in project.said


def test_a_run_ends_with_its_results_where_people_look(project: Project) -> None:
    assert (project.run / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert (project.run / "bundle" / "bundle.json").is_file()
    assert read_json(project.run / "metrics.json")["num_tasks"] == 6
    assert read_json(project.run / "verdict" / "verdict.json")["passed"] is True


def test_a_run_ends_with_the_metrics_the_paths_and_three_commands(project: Project) -> None:
    table = project.said[project.said.index("\ntask ") :]
    for task, entry in read_json(project.run / "metrics.json")["tasks"].items():
        assert re.search(rf"^{task} +{entry['metric']} [↑↓] +{entry['model'][entry['metric']]:.4g} ", table, re.MULTILINE)
    assert "report  runs/demo/report.html" in table
    assert re.search(r"promoted  lavin-dit v\d+\.\d+\.\d+ is in production", table)
    assert len(commands(project)) == 3


def commands(project: Project) -> list[str]:
    return [line.strip() for line in project.said[project.said.rindex("Try next:") :].splitlines()[1:] if line.strip()]


def test_the_commands_to_try_next_work(project: Project) -> None:
    browse, predict, history = commands(project)
    assert (project.folder / browse.split()[-1]).is_file()
    call(project.folder, predict)
    assert (project.folder / predict.split()[-1]).is_file()
    assert "production" in call(project.folder, history)


def test_kfps_noise_stays_in_the_log(project: Project) -> None:
    assert "KFP Executor" in (project.run / "kfp.log").read_text()
    assert "KFP" not in project.said
    assert "INFO" not in project.said


def carried_out(said: str) -> list[str]:
    """The steps that a run carried out, of those that say so: `resolve` always does its work, and quietly."""
    return re.findall(r"^step (\w+): started$", said, re.MULTILINE)


def from_the_cache(said: str) -> list[str]:
    return re.findall(r"^step (\w+): already done, nothing that it depends on has changed$", said, re.MULTILINE)


def test_the_first_run_after_a_promotion_judges_against_it(project: Project) -> None:
    said = call(project.folder, "lavin run")
    assert from_the_cache(said) == list(KEPT)
    assert carried_out(said) == ["gate", "promote"]
    assert re.search(r"gate: passed .* Compared with v0\.1\.0\.", said)
    assert "is in production (as before)" in said


def test_an_unchanged_run_carries_out_nothing_but_what_is_never_cached(project: Project) -> None:
    said = call(project.folder, "lavin run")
    assert from_the_cache(said) == [*KEPT, "gate"]
    assert carried_out(said) == ["promote"]


def test_a_changed_section_runs_its_step_again_and_none_before_it(project: Project) -> None:
    said = call(project.folder, "lavin run --set gate.min_tasks_beating_baselines=6", code=1)
    assert from_the_cache(said) == list(KEPT)
    assert carried_out(said) == ["gate"]
    assert "refused, tasks_beating_baselines is " in said


def test_a_mistake_in_the_data_is_the_last_line(project: Project) -> None:
    photos = project.folder / "data" / "raw" / "photos"
    photos.mkdir(parents=True)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = call(project.folder, "lavin run --name broken", code=2)
    assert re.fullmatch(r"lavin: error: .*broken\.png.*", said.splitlines()[-1])
    shutil.rmtree(project.folder / "data")


def test_both_runners_make_the_same_shards_and_metrics(project: Project, recorded: Project) -> None:
    published = next((project.run / "kfp").glob("*/prepare/shards"))
    shards, same = open_input(published), recorded.folder / "outputs" / "shards"
    names = sorted(path.relative_to(shards) for path in shards.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(same) for path in same.rglob("*") if path.is_file())
    assert len(names) > 4
    assert all((shards / name).read_bytes() == (same / name).read_bytes() for name in names)
    for metrics in ("evaluation", "dit", "vae"):
        (here,) = {path.read_text() for path in (project.run / "kfp").glob(f"*/*/{metrics}/metrics.json")}
        assert json.loads(here) == read_json(recorded.folder / "outputs" / metrics / "metrics.json")


def test_dvc_skips_what_has_not_changed(recorded: Project) -> None:
    said = call(recorded.folder, "dvc repro")
    assert said.count("didn't change, skipping") == len(STEPS) - 1
    assert call(recorded.folder, "git status --porcelain") == ""


def test_dvc_shows_metrics_and_plots(recorded: Project) -> None:
    metrics = json.loads(call(recorded.folder, "dvc metrics show --json"))[""]["data"]
    assert len(metrics["outputs/evaluation/headline.json"]["data"]) == 1 + 6
    assert len(metrics["outputs/evaluation/losses.json"]["data"]) == 1 + 6
    call(recorded.folder, "dvc plots show")
    assert "J-DiT, training loss" in (recorded.folder / "dvc_plots" / "index.html").read_text()


def test_dvc_experiments_change_a_parameter_and_rerun_what_it_touches(recorded: Project) -> None:
    said = call(recorded.folder, "dvc exp run -S gate.max_regression=5 gate")
    assert "Running stage 'gate'" in said
    assert "Stage 'export' didn't change, skipping" in said
    assert yaml.safe_load((recorded.folder / "params.yaml").read_text())["gate"]["max_regression"] == 5


def test_a_changed_section_in_the_middle_runs_what_follows_too(project: Project) -> None:
    said = call(project.folder, "lavin run --set evaluate.queries_per_task=1 --set promote.stage=staging")
    assert from_the_cache(said) == ["prepare", "train_vae", "train_dit"]
    assert carried_out(said) == ["evaluate", "export", "gate", "promote"]


def test_other_data_run_everything_again(project: Project) -> None:
    photos = project.folder / "mine" / "photos"
    photos.mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (40, 40), (30 * number, 90, 200)).save(photos / f"{number}.png")
    said = call(project.folder, "lavin run --raw mine --set promote.stage=staging")
    assert from_the_cache(said) == []
    assert carried_out(said) == [*KEPT, "gate", "promote"]


def test_how_a_run_ended_is_recorded_even_where_it_failed(project: Project) -> None:
    call(project.folder, "lavin run --name short --set train_vae.batch_size=4096 --set prepare.num_test_scenes=0", code=2)
    outcome = read_json(project.folder / "runs" / "short" / "runs" / "local" / "outcome.json")
    assert (outcome["state"], outcome["done"]) == ("FAILED", {})
    assert read_json(project.run / "runs" / "local" / "outcome.json")["state"] == "SUCCEEDED"
