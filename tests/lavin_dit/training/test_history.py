import json
from pathlib import Path
from typing import Any

import pytest

from lavin_dit.errors import TrainingDivergedError
from lavin_dit.training.history import History, read_history, read_record


def row(step: int, **losses: float) -> dict[str, Any]:
    values = losses or {"loss": 1.0 / step, "squared": step / 3.0}
    return {"step": step, "losses": values, "grad_norm": 0.5, "learning_rate": 1e-3, "task_losses": {"depth": 1.0 / step}}


def fill(folder: Path, first: int, last: int, *, resume_at: int = 0) -> History:
    folder.mkdir(exist_ok=True)
    history = History(folder, resume_at=resume_at)
    for step in range(first, last + 1):
        history.add(row(step))
    return history


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def steps(folder: Path) -> list[float]:
    found = [row["step"] for row in read_record(folder / "metrics.jsonl")]
    assert found == [row["step"] for row in read_history(folder / "history.csv")]
    return found


def test_what_is_remembered_is_what_is_written(tmp_path: Path) -> None:
    history = fill(tmp_path, 1, 7)
    assert read_record(tmp_path / "metrics.jsonl") == history.rows == [row(step) for step in range(1, 8)]
    assert (tmp_path / "history.csv").read_text().splitlines()[:2] == [
        "step,loss,squared,grad_norm,learning_rate",
        "1,1,0.333333,0.5,0.001",
    ]


@pytest.mark.parametrize("checkpoint", [0, 1, 4, 7])
def test_a_restart_leaves_neither_gaps_nor_duplicates(checkpoint: int, tmp_path: Path) -> None:
    fill(tmp_path / "whole", 1, 10)
    fill(tmp_path / "cut", 1, 7)
    fill(tmp_path / "cut", checkpoint + 1, 10, resume_at=checkpoint)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_way_back_leaves_neither_gaps_nor_duplicates(tmp_path: Path) -> None:
    fill(tmp_path / "whole", 1, 10)
    history = fill(tmp_path / "back", 1, 8)
    history.drop_after(4)
    for step in range(5, 11):
        history.add(row(step))
    assert contents(tmp_path / "back") == contents(tmp_path / "whole")


def test_a_last_line_that_a_kill_cut_anywhere_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, 1, 3)
    whole = contents(tmp_path)
    for name, content in whole.items():
        for size in range(content.rstrip().rfind(b"\n") + 1, len(content)):
            for other in whole:
                (tmp_path / other).write_bytes(whole[other])
            (tmp_path / name).write_bytes(content[:size])
            fill(tmp_path, 3, 3, resume_at=2)
            assert contents(tmp_path) == whole


def test_a_record_ends_before_what_cannot_be_read(tmp_path: Path) -> None:
    fill(tmp_path, 1, 5)
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([*lines[:3], b"\0" * 20 + b"\n", *lines[4:]]))
    fill(tmp_path, 4, 5, resume_at=5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_what_is_absent_or_cut_within_its_first_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("step,lo")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1')
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert read_history(folder / "history.csv") == []
        assert read_record(folder / "metrics.jsonl") == []


def test_the_mean_of_the_last_rows_is_the_same_after_a_restart(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole", 1, 10)
    fill(tmp_path / "cut", 1, 8)
    restarted = fill(tmp_path / "cut", 7, 10, resume_at=6)
    assert restarted.mean_of_last("loss", 5) == whole.mean_of_last("loss", 5)
    assert whole.mean_of_last("loss", 5) == pytest.approx(sum(1 / step for step in range(6, 11)) / 5)


def test_a_step_that_was_not_learnt_from_is_in_the_record_and_in_no_curve(tmp_path: Path) -> None:
    history = fill(tmp_path, 1, 2)
    history.add(row(3) | {"losses": {}, "grad_norm": float("nan")})
    history.add(row(4, loss=2.0))
    assert [kept["grad_norm"] for kept in read_record(tmp_path / "metrics.jsonl")] == [0.5, 0.5, None, 0.5]
    assert [point["step"] for point in read_history(tmp_path / "history.csv")] == [1, 2, 4]
    assert history.mean_of_last("loss", 2) == pytest.approx((0.5 + 2.0) / 2)


def test_a_loss_that_appears_later_gets_a_column_and_its_rows_before_stay_empty(tmp_path: Path) -> None:
    history = fill(tmp_path, 1, 2)
    history.add(row(3, loss=0.1, adversarial=0.7))
    history.add(row(4))
    rows = read_history(tmp_path / "history.csv")
    assert [point["loss"] for point in rows] == pytest.approx([1.0, 0.5, 0.1, 0.25])
    assert str([point["adversarial"] for point in rows]) == "[nan, nan, 0.7, nan]"
    assert str([point["squared"] for point in rows][2]) == "nan"


def test_every_line_of_the_record_is_strict_json(tmp_path: Path) -> None:
    History(tmp_path, resume_at=0).add(row(1, loss=float("inf")) | {"mfu": float("nan")})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["losses"] == {"loss": None}


def test_a_history_without_a_folder_is_kept_in_memory() -> None:
    history = History(None, resume_at=0)
    history.add(row(1, loss=0.5))
    assert history.rows == [row(1, loss=0.5)]
    assert history.mean_of_last("loss", 10) == 0.5


def test_a_run_that_learnt_nothing_has_diverged() -> None:
    with pytest.raises(TrainingDivergedError, match=r"lower optimizer.learning_rate"):
        History(None, resume_at=0).mean_of_last("loss", 10)
