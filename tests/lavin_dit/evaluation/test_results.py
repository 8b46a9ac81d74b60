import json
import math

import numpy as np
import pytest

from lavin_dit.data.tasks import TASKS
from lavin_dit.data.world.layout import CLASSES
from lavin_dit.evaluation.metrics import KIND_METRICS, METRICS, Measurement, pool_confusion, undefined
from lavin_dit.evaluation.results import (
    ANSWERS,
    CEILING,
    CONTEXT_MEAN,
    MODEL,
    QUERY_UNCHANGED,
    TaskResult,
    confusion_rows,
    metrics_document,
    num_beating,
    score_rows,
    show,
    summary,
)


def result(name: str, model: float, unchanged: float, mean: float, ceiling: float) -> TaskResult:
    """A result whose metrics all have one value an answer."""
    task = TASKS[name]
    values = dict(zip(ANSWERS, (model, unchanged, mean, ceiling), strict=True))
    return TaskResult(task, 3, {answer: Measurement(dict.fromkeys(KIND_METRICS[task.kind], value)) for answer, value in values.items()})


BETTER_DEPTH = result("depth", 0.2, 0.9, 0.6, 0.1)
WORSE_IMAGE = result("denoising", 20.0, 25.0, 14.0, 30.0)
BROKEN = result("deblurring", math.nan, 20.0, 14.0, 30.0)


def test_less_is_better_for_errors_and_more_for_scores() -> None:
    assert BETTER_DEPTH.beats_baselines
    assert not WORSE_IMAGE.beats_baselines
    assert result("denoising", 26.0, 25.0, 14.0, 30.0).beats_baselines
    assert not result("depth", 0.7, 0.9, 0.6, 0.1).beats_baselines


def test_a_model_without_a_number_beats_nothing() -> None:
    assert not BROKEN.beats_baselines
    assert MODEL not in BROKEN.best("psnr")
    assert num_beating([BETTER_DEPTH, WORSE_IMAGE, BROKEN]) == 1


def test_the_ceiling_is_never_among_the_best() -> None:
    assert BETTER_DEPTH.best("abs_rel") == {MODEL}
    assert WORSE_IMAGE.best("psnr") == {QUERY_UNCHANGED}
    assert result("depth", 0.6, 0.9, 0.6, 0.1).best("abs_rel") == {MODEL, CONTEXT_MEAN}


def test_the_way_to_the_ceiling_starts_at_the_better_baseline() -> None:
    assert BETTER_DEPTH.headroom_used() == pytest.approx((0.6 - 0.2) / (0.6 - 0.1))
    assert WORSE_IMAGE.headroom_used() == pytest.approx(-1.0)
    assert math.isnan(result("depth", 0.2, 0.9, 0.6, 0.7).headroom_used())


def test_the_document_has_what_gates_read() -> None:
    document = metrics_document([BETTER_DEPTH, WORSE_IMAGE])
    assert (document["tasks_beating_baselines"], document["num_tasks"]) == (1, 2)
    depth = document["tasks"]["depth"]
    assert (depth["metric"], depth["better"], depth["beats_baselines"]) == ("abs_rel", "lower", True)
    assert depth["model"]["abs_rel"] == 0.2
    assert set(depth) >= {MODEL, QUERY_UNCHANGED, CONTEXT_MEAN, CEILING}
    assert json.loads(json.dumps(document)) == document


def test_score_rows_leave_undefined_values_empty() -> None:
    rows = list(score_rows([BROKEN]))
    assert [row["metric"] for row in rows] == list(KIND_METRICS["image"])
    assert all(row["model"] == "" and row["beats"] is False for row in rows)
    assert rows[0]["query_unchanged"] == 20.0


def test_confusion_rows_add_up_to_the_pixels() -> None:
    counts = np.arange(len(CLASSES) ** 2, dtype=np.int64).reshape(len(CLASSES), -1)
    semantic = TaskResult(TASKS["semantic"], 1, dict.fromkeys(ANSWERS, pool_confusion(counts)))
    rows = confusion_rows(semantic)
    assert sum(int(str(row["pixels"])) for row in rows) == counts.sum()
    assert rows[1] == {"truth": CLASSES[0], "prediction": CLASSES[1], "pixels": 1}
    assert confusion_rows(BETTER_DEPTH) == []
    assert confusion_rows(TaskResult(TASKS["semantic"], 1, dict.fromkeys(ANSWERS, Measurement(undefined("labels"))))) == []


def test_values_are_shown_with_their_unit_and_nan_as_missing() -> None:
    assert show(METRICS["mean_angle"], 12.34) == "12.3°"
    assert show(METRICS["psnr"], 21.0).split() == ["21.00", "dB"]
    assert show(METRICS["abs_rel"], math.nan) == "n/a"


def test_the_summary_has_a_row_for_every_task_with_the_best_in_bold() -> None:
    text = summary([BETTER_DEPTH, WORSE_IMAGE, BROKEN])
    assert text.startswith("# The model beats both baselines on 1 of 3 tasks")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.count("|") for row in rows] == [8] * 4
    assert "**0.200**" in rows[1]
    assert "n/a" in rows[3]
