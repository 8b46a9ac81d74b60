from pathlib import Path

import pytest

from lavin_dit.training.history import History, read_history


def fill(path: Path, first: int, last: int, *, resume_at: int = 0) -> History:
    history = History(path, resume_at=resume_at)
    for step in range(first, last + 1):
        history.add(step, {"loss": 1.0 / step, "squared": step / 3.0})
    return history


def steps(path: Path) -> list[float]:
    return [row["step"] for row in read_history(path)]


def test_what_is_remembered_is_what_is_written(tmp_path: Path) -> None:
    history = fill(tmp_path / "history.csv", 1, 7)
    assert read_history(tmp_path / "history.csv") == history.rows
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == "step,loss,squared"


@pytest.mark.parametrize("checkpoint", [0, 1, 4, 7])
def test_a_restart_leaves_neither_gaps_nor_duplicates(checkpoint: int, tmp_path: Path) -> None:
    fill(tmp_path / "whole.csv", 1, 10)
    fill(tmp_path / "cut.csv", 1, 7)
    fill(tmp_path / "cut.csv", checkpoint + 1, 10, resume_at=checkpoint)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_last_line_that_a_kill_cut_anywhere_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    fill(path, 1, 3)
    content = path.read_bytes()
    last_line = content[: content.rstrip().rfind(b"\n") + 1]
    for size in range(len(last_line), len(content)):
        path.write_bytes(content[:size])
        assert steps(path) == [1, 2]
        fill(path, 3, 3, resume_at=2)
        assert path.read_bytes() == content


def test_a_file_cut_within_its_first_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,lo")
    assert read_history(tmp_path / "history.csv") == []
    assert read_history(tmp_path / "nowhere.csv") == []


def test_the_mean_of_the_last_rows_is_the_same_after_a_restart(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole.csv", 1, 10)
    fill(tmp_path / "cut.csv", 1, 8)
    restarted = fill(tmp_path / "cut.csv", 7, 10, resume_at=6)
    assert restarted.mean_of_last("loss", 5) == whole.mean_of_last("loss", 5)
    assert whole.mean_of_last("loss", 5) == pytest.approx(sum(1 / step for step in range(6, 11)) / 5, rel=1e-5)


def test_a_history_without_a_file_is_kept_in_memory() -> None:
    history = History(None, resume_at=0)
    history.add(1, {"loss": 0.5})
    assert history.rows == [{"step": 1.0, "loss": 0.5}]
