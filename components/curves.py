"""The curve of one model of a study, as a folder: what it is, what it scored with each number of pairs, and what it answered."""

import csv
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.evaluate import EXAMPLES, QUERIES_FILE
from components.folders import read_json, write_json
from components.study import held_out_tasks
from lavin_dit.data.tasks import task_of
from lavin_dit.errors import InputError
from lavin_dit.evaluation.metrics import primary_metric
from lavin_dit.evaluation.results import CEILING, LOSS, MODEL, QUERY_UNCHANGED
from lavin_dit.evaluation.trends import Curve, Score
from lavin_dit.training_config import TrainDitConfig

MODEL_FILE = "model.json"


def write_curve(folder: Path, *, size: str, section: TrainDitConfig, dit: Path, evaluations: Sequence[Path]) -> None:
    """Gathers a model and its evaluations, each with a number of pairs of its own."""
    measured = read_json(dit / "metrics.json")
    facts = {
        "size": size,
        "num_parameters": measured["num_parameters"],
        "train_loss": measured["loss"],
        "learning_rate": section.optimizer.learning_rate,
        "held_out": list(held_out_tasks(section)),
    }
    write_json(folder / MODEL_FILE, facts, nan_as_null=True)
    for evaluation in evaluations:
        kept = folder / str(read_json(evaluation / "config.json")["sampling"]["num_pairs"])
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        shutil.copyfile(evaluation / QUERIES_FILE, kept / QUERIES_FILE)
        shutil.copytree(evaluation / EXAMPLES, kept / EXAMPLES)


def read_curve(folder: Path) -> Curve:
    """What `write_curve` has left.

    Raises: InputError naming the file that is absent or is not what it should be.
    """
    facts = read_json(folder / MODEL_FILE)
    scores = [score for path in sorted(folder.glob(f"*/{QUERIES_FILE}")) for score in _read_scores(path)]
    if not scores:
        raise InputError(f"{folder}: holds no scores; run the study again")
    return Curve(
        size=facts["size"],
        num_parameters=facts["num_parameters"],
        learning_rate=facts["learning_rate"],
        train_loss=math.nan if facts["train_loss"] is None else facts["train_loss"],
        held_out=tuple(facts["held_out"]),
        scores=scores,
    )


def _read_scores(path: Path) -> list[Score]:
    """The loss and the task's own metric of every query."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] in (LOSS, primary_metric(task_of(row["task"])).name)]
    return [_score(row, int(path.parent.name)) for row in rows]


def _score(row: dict[str, Any], num_pairs: int) -> Score:
    value, ceiling, unchanged = (float(row[column] or "nan") for column in (MODEL, CEILING, QUERY_UNCHANGED))
    return Score(num_pairs, row["task"], row["scene"], row["metric"], value, ceiling, unchanged)
