import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = ("kfp", "torch", "dvc", "onnxruntime", "numpy", "scipy", "matplotlib", "gto")
COMMANDS = ("run", "compile", "data", "predict", "promote", "rollback", "history")


def lavin(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_nothing_slow_is_imported_before_a_command_needs_it() -> None:
    script = f"import sys, pipelines.cli; print(*(name for name in {SLOW!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_mistake_is_found_before_kfp_is_imported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "tests" / "tiny.yaml").read_text())
    command = [sys.executable, "-X", "importtime", "-m", "pipelines.cli", "run", "--set", "train_dit.steps=-1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    *imports, last = done.stderr.splitlines()
    assert done.returncode == 2
    assert last == "lavin: error: train_dit.steps is -1: input should be greater than 0"
    assert not any(line.rpartition("|")[2].strip() in SLOW for line in imports)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "params.yaml: cannot be read as a params file"),
        (["run", "--recipe", "nowhere"], "--recipe nowhere: must be one of"),
        (["run", "--params", str(ROOT / "tests" / "tiny.yaml"), "--name", "../x"], "--name ../x: must be one plain name"),
        (["run", "--params", str(ROOT / "tests" / "tiny.yaml"), "--seed", "-1"], "prepare.seed is -1"),
    ],
)
def test_a_mistake_ends_with_exit_code_2_and_one_line(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = lavin(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("lavin: error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_help_names_every_command(tmp_path: Path) -> None:
    done = lavin(tmp_path, "--help")
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    from lavin_dit import __version__

    assert lavin(tmp_path, "--version").stdout == f"lavin {__version__}\n"
