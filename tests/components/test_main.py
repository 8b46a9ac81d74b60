import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.__main__ import default_folder, main
from components.entry import PACKAGES
from components.steps import STEPS

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"


def run_step(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "components", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(TINY, tmp_path / "params.yaml")
    return tmp_path


MISTAKES = {
    "unknown parameter": (["prepare", "--set", "prepare.resolutoin=64"], "prepare.resolutoin: unknown parameter"),
    "wrong type": (["train_dit", "--set", "train_dit.steps=many"], "train_dit.steps is 'many': "),
    "number as text": (["train_dit", "--set", "train_dit.steps='4'"], "train_dit.steps is '4': "),
    "head width": (
        ["train_dit", "--set", "train_dit.shape={depth: 2, dim: 40, num_heads: 4, kv_group: 2}"],
        "head_dim is 10 .*divisible by 6",
    ),
    "clip length": (["prepare", "--set", "prepare.clip_frames=4"], r"prepare.clip_frames is 4: must be 1 \+ 4k"),
    "resolution": (["prepare", "--set", "prepare.resolution=40"], "prepare.resolution is 40: must be a multiple of 16"),
    "another section's mistake": (["prepare", "--set", "export.seed=-1"], "export.seed is -1: "),
    "unknown recipe": (["prepare", "--recipe", "nowhere"], "--recipe nowhere: must be one of "),
    "recipe and file": (["prepare", "--recipe", "a", "--params", "b"], "give one of the two"),
    "absent file": (["prepare", "--params", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    "unknown step": (["bake"], "invalid choice: 'bake'"),
    "unknown option": (["prepare", "--fast"], "unrecognized arguments: --fast"),
    "unknown input": (["prepare", "--input", "row=data"], "--input row=data: must read NAME=FOLDER with NAME one of raw"),
    "section and file": (["gate", "--section", "gate.json", "--set", "gate.max_regression=1"], "goes with neither"),
    "bad files of another step": (["export", "--on-bad", "skip"], "--on-bad skip: goes with prepare alone, not with export"),
    "what is done about bad files": (["prepare", "--on-bad", "hope"], "invalid choice: 'hope'"),
    "section and bad files": (["prepare", "--section", "prepare.json", "--on-bad", "skip"], "goes with neither"),
    "processes": (["prepare", "--processes", "2"], "--processes 2: must be 1 for step prepare"),
}


@pytest.fixture
def _loggers() -> Iterator[None]:
    """The entry point sets up logging for its process; this process has more tests to run."""
    loggers = [logging.getLogger(package) for package in PACKAGES]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("_loggers")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_exit_code_2_and_one_line(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, sentence = MISTAKES[name]
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    written = capfd.readouterr()
    assert ended.value.code == 2
    assert re.fullmatch(rf"lavin: error: .*{sentence}.*\n", written.err), written.err
    assert written.out == ""
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


def test_the_process_itself_says_so(project: Path) -> None:
    done = run_step(project, "prepare", "--set", "prepare.resolution=40")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lavin: error: prepare.resolution is 40")


def test_a_step_writes_where_it_is_told(project: Path) -> None:
    done = run_step(project, "resolve", "--output", "plan=elsewhere/plan")
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "elsewhere" / "plan" / "plan.json").is_file()
    assert not (project / "outputs").exists()


def test_a_step_takes_the_section_that_resolve_wrote(project: Path) -> None:
    run_step(project, "resolve", "--set", "prepare.num_train_scenes=3")
    done = run_step(project, "prepare", "--section", "outputs/plan/prepare.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"train": 3' in (project / "outputs" / "shards" / "manifest.json").read_text()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(project: Path) -> None:
    limited = f"ulimit -f 8; exec {sys.executable} -m components prepare"
    done = subprocess.run(["bash", "-c", limited], cwd=project, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"lavin: failed: disk full.*\n", done.stderr), done.stderr
    assert not (project / "outputs" / "shards").exists()
    assert run_step(project, "prepare").returncode == 0


def test_a_step_ends_when_its_reader_is_gone(project: Path) -> None:
    command = [sys.executable, "-m", "components", "prepare", "--set", "prepare.num_train_scenes=100000"]
    step = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert step.stdout is not None
    assert step.stdout.readline() == "step prepare: started\n"
    step.stdout.close()
    assert step.wait(timeout=30) == -15
    assert not (project / "outputs" / "shards").exists()


def test_folders_have_plain_defaults() -> None:
    assert [str(default_folder(name)) for name in ("raw", "registry", "vae")] == ["data/raw", "runs/registry", "outputs/vae"]


def test_help_names_every_step(project: Path) -> None:
    done = run_step(project, "--help")
    assert done.returncode == 0
    assert all(step in done.stdout for step in STEPS)
