"""Step of a study: puts its models side by side, and writes figures, drawings and a summary."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.curves import read_curve
from components.evaluate import EXAMPLES
from components.folders import write_json, write_text
from lavin_dit.data.pixels import Picture
from lavin_dit.evaluation.report import png_uri
from lavin_dit.evaluation.trend_charts import GROUP_TITLES, draw_answers, draw_losses, draw_metrics, short
from lavin_dit.evaluation.trends import in_order, trends_document

logger = logging.getLogger(__name__)

NUM_COLUMNS = 3
"""Of a picture of examples: the query, the answer, and the truth."""


def write_trends(curves: Sequence[Path], folder: Path) -> None:
    """Compares the models of a study, whose curves lie in folders of their own.

    Raises: InputError naming what is absent from a curve.
    """
    read = {path: read_curve(path) for path in curves}
    document = trends_document(list(read.values()))
    write_json(folder / "trends.json", document, nan_as_null=True)
    write_text(folder / "summary.md", summary(document))
    drawings = {
        "loss": draw_losses(document),
        "metrics_over_pairs": draw_metrics(document, over_pairs=True),
        "metrics_over_size": draw_metrics(document, over_pairs=False),
    }
    ordered = in_order(read.values())
    folders = {curve.size: path for path, curve in read.items()}
    pairs = [str(count) for count in ordered[0].num_pairs]
    for task in ordered[0].tasks:
        if (folders[ordered[0].size] / pairs[0] / EXAMPLES / f"{task}.png").is_file():
            drawings[f"answers_{task}"] = _draw_answers(task, {curve.size: folders[curve.size] for curve in ordered}, pairs)
    for name, drawing in drawings.items():
        (folder / f"{name}.png").write_bytes(drawing)
    write_text(folder / "report.html", page(drawings))
    logger.info("trends: %d models, %d numbers of pairs", len(curves), len(pairs))


def _draw_answers(task: str, folders: Mapping[str, Path], pairs: Sequence[str]) -> bytes:
    """The task's first example."""
    rows = [[_first_example(folder / count / EXAMPLES / f"{task}.png") for count in pairs] for folder in folders.values()]
    query, _, truth = rows[0][0]
    return draw_answers(task, list(folders), pairs, [[answer for _, answer, _ in row] for row in rows], (query, truth))


def _first_example(path: Path) -> list[Picture]:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    side = pixels.shape[1] // NUM_COLUMNS
    return [pixels[:side, column * side : (column + 1) * side] for column in range(NUM_COLUMNS)]


def page(drawings: Mapping[str, bytes]) -> str:
    """The drawings in one HTML file, as the KFP UI shows it."""
    pictures = "\n".join(f'<p><img src="{png_uri(drawing)}" alt="{name}"></p>' for name, drawing in drawings.items())
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Study</title>\n{pictures}\n</html>\n'


def summary(document: Mapping[str, Any]) -> str:
    """The losses as tables, and which steps to a larger model or to more pairs are sure, as Markdown."""
    return "\n".join(line for group in document["loss"] for line in _summary_of(document, group))


def _summary_of(document: Mapping[str, Any], group: str) -> list[str]:
    series, pairs = document["loss"][group], [str(count) for count in document["num_pairs"]]
    header = ["Size", "Parameters", *(f"{count} pairs" for count in pairs)]
    rows = [
        [model["size"], short(model["num_parameters"]), *(_shown(series["values"][model["size"]][count]) for count in pairs)]
        for model in document["models"]
    ]
    return [
        f"## {GROUP_TITLES[group]}: held-out flow-matching loss, and its standard error within scenes",
        "",
        *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)),
        "",
        _judge("a larger model", series["larger_model"]),
        _judge("more pairs", series["more_pairs"]),
        "",
    ]


def _shown(cell: Mapping[str, Any]) -> str:
    # One scene has no spread.
    error = f" ± {cell['error']:.4f}" if math.isfinite(cell["error"]) else ""
    return f"{cell['mean']:.4f}{error}"


def _judge(step: str, steps: Sequence[Mapping[str, Any]]) -> str:
    """In how many of the paired comparisons the loss surely fell, or rose."""
    fell, rose = (sum(each["is_sure"] and (each["mean"] < 0) == is_fall for each in steps) for is_fall in (True, False))
    return f"With {step} it surely falls in {fell} of {len(steps)} paired comparisons, and surely rises in {rose} (95 % confidence)."
