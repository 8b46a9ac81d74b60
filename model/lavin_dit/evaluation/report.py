"""The report: one HTML file that asks for nothing from outside, made of what was measured, seen and recorded."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lavin_dit.data.pixels import CLIP_DIMENSIONS, Pixels
from lavin_dit.data.shards.picture_files import encode_png
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.evaluation import charts
from lavin_dit.evaluation.metrics import KIND_CLASSES, PSNR_CAP_DB
from lavin_dit.evaluation.results import ANSWER_TITLES, ANSWERS, CEILING, MISSING, MODEL, TaskResult, num_beating, show

TEMPLATE = "report.html.j2"
STEP_COLUMN = "step"
SMALL_PICTURE = 160
"""Pictures with fewer pixels a side are enlarged as squares, not blurred."""
FRAME_MS = 200


@dataclass(frozen=True)
class Example:
    """One query as the model saw it, its answer, and the truth."""

    context: tuple[ImagePair, ...] | tuple[ClipPair, ...]
    query: Pixels
    prediction: Pixels
    truth: Pixels


@dataclass(frozen=True)
class Report:
    """All that the report shows.

    `num_pairs` is the number of context pairs of every query; `histories` holds the rows of a training's history.csv by the network's
    title, `reconstructions` PNG files with the original beside its reconstruction, `facts` short facts by group, `configs` the text
    of each step's section.
    """

    results: Sequence[TaskResult]
    num_pairs: int
    examples: Mapping[str, Sequence[Example]]
    histories: Mapping[str, Sequence[Mapping[str, float]]]
    reconstructions: Sequence[bytes]
    facts: Mapping[str, Mapping[str, str]]
    configs: Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """A drawing of one column of a history."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class ConfusionRow:
    """What the pixels of one true class were taken for. `shares` are of the row; all 0 where the truth does not hold the class."""

    title: str
    pixels: int
    shares: tuple[float, ...]


def render(report: Report) -> str:
    """The report as HTML. Equal reports give equal text."""
    environment = Environment(
        loader=PackageLoader("lavin_dit.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(picture_uri=picture_uri, png_uri=png_uri, share=show_share)
    page = environment.get_template(TEMPLATE).render(
        report=report,
        num_beating=num_beating(report.results),
        num_queries=sum(result.num_queries for result in report.results),
        curves={title: draw_curves(title, rows) for title, rows in report.histories.items()},
        confusions={result.task.name: confusion_rows(result) for result in report.results},
        classes=KIND_CLASSES,
        answers=ANSWERS,
        answer_titles=ANSWER_TITLES,
        CEILING=CEILING,
        psnr_cap_db=PSNR_CAP_DB,
        show=show,
        is_small=is_small,
    )
    return f"{page}\n"


def draw_curves(title: str, rows: Sequence[Mapping[str, float]]) -> list[Curve]:
    """A drawing for every column of a history but the steps; none where it has no rows."""
    if not rows:
        return []
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    steps = columns.pop(STEP_COLUMN, np.arange(len(rows), dtype=np.float64))
    return [
        # The label inside the drawing is escaped where it is made; nothing else in it comes from a file.
        Curve(name.replace("_", " "), Markup(charts.curve(f"{title} {name}", steps, values)))  # noqa: S704
        for name, values in columns.items()
    ]


def confusion_rows(result: TaskResult) -> list[ConfusionRow]:
    """The model's confusion matrix as shares of each true class; none for tasks without our classes."""
    classes, counts = KIND_CLASSES.get(result.task.kind, ()), result.measured[MODEL].counts
    if counts is None or counts.shape != (len(classes), len(classes)):
        return []
    return [
        ConfusionRow(title, int(row.sum()), tuple(float(count / max(row.sum(), 1)) for count in row))
        for title, row in zip(classes, counts, strict=False)
    ]


def picture_uri(pixels: Pixels) -> str:
    """A picture, or a clip that plays, as text that an `img` can show."""
    is_clip = pixels.ndim == CLIP_DIMENSIONS
    return png_uri(encode_animation(pixels) if is_clip else encode_png(np.ascontiguousarray(pixels)))


def encode_animation(clip: Pixels) -> bytes:
    """A clip as an animated PNG, which plays for ever. Shapes: (t, h, w, 3) uint8."""
    first, *others = (Image.fromarray(frame) for frame in clip)
    buffer = io.BytesIO()
    first.save(buffer, format="png", save_all=True, append_images=others, duration=FRAME_MS, loop=0)
    return buffer.getvalue()


def png_uri(content: bytes) -> str:
    """A PNG file as text that an `img` can show."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def is_small(pixels: Pixels) -> bool:
    """Whether a picture is enlarged on most screens."""
    return bool(max(pixels.shape[-3:-1]) < SMALL_PICTURE)


def show_share(share: float) -> str:
    """The way to the ceiling as people read it."""
    if math.isnan(share):
        return MISSING
    return f"{share:.0%}" if share > 0 else "none"
