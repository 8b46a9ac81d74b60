"""The confusion matrix of an evaluation, as it was written beside the metrics."""

import csv
from dataclasses import dataclass
from pathlib import Path

PREFERRED = "confusion_semantic.csv"


@dataclass(frozen=True)
class Confusion:
    """Pixels by their true class (rows) and the class that the model saw (columns)."""

    classes: tuple[str, ...]
    counts: list[list[int]]


def read_confusion(evaluation: Path) -> Confusion | None:
    """The matrix of semantic segmentation, else of another task with classes; None where no task has any."""
    found = sorted(evaluation.glob("confusion_*.csv"), key=lambda path: (path.name != PREFERRED, path.name))
    return _read(found[0]) if found else None


def _read(path: Path) -> Confusion:
    with path.open(newline="", encoding="utf-8") as file:
        pixels = {(row["truth"], row["prediction"]): int(row["pixels"]) for row in csv.DictReader(file)}
    classes = tuple(dict.fromkeys(truth for truth, _ in pixels))
    return Confusion(classes, [[pixels[truth, prediction] for prediction in classes] for truth in classes])
