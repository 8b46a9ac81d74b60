"""The command's own part: what it asks for, and what it refuses. tests/components/test_record.py records a real run with it."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lavin_dit.errors import InputError
from pipelines.record import record

app = typer.Typer()
app.command()(record)


def lavin(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_a_repository_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAVIN_DATA_REPOSITORY", raising=False)
    with pytest.raises(InputError, match="--repository: must name a git repository"):
        lavin("run-1", "--workspace", tmp_path)


def test_the_clusters_own_repository_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIN_DATA_REPOSITORY", str(tmp_path))
    with pytest.raises(InputError, match=r"run run-1: is not in .*runs; must be the id of a run"):
        lavin("run-1", "--workspace", tmp_path)


def test_a_run_that_only_began_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs" / "run-1").mkdir(parents=True)
    with pytest.raises(InputError, match="run run-1: has no output of resolve in"):
        lavin("run-1", "--workspace", tmp_path, "--repository", tmp_path)


def test_an_address_with_a_password_is_refused_without_telling_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Secret lavin-git") as caught:
        lavin("run-1", "--workspace", tmp_path, "--repository", "https://me:word@host/repository")
    assert "word@" not in str(caught.value)


def test_the_help_says_what_is_done() -> None:
    assert "`dvc repro` finds nothing to do" in " ".join(lavin("--help").split())
