"""What is measured of each kind of task, and what one measurement holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.tasks import Kind
from lavin_dit.data.world.layout import CLASSES

Counts = NDArray[np.int64] | NDArray[np.float64]
Better = Literal["lower", "higher"]

MASK_CLASSES = ("background", "foreground")


@dataclass(frozen=True)
class Metric:
    """What a number means and how it is shown."""

    name: str
    title: str
    better: Better
    unit: str
    decimals: int


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("abs_rel", "Absolute relative error", "lower", "", 3),
        Metric("delta1", "Pixels within a factor 1.25 (δ1)", "higher", "", 3),
        Metric("rmse", "Root mean squared error", "lower", "m", 2),
        Metric("mean_angle", "Mean angle", "lower", "°", 1),
        Metric("within_11_25", "Pixels within 11.25°", "higher", "", 3),
        Metric("within_30", "Pixels within 30°", "higher", "", 3),
        Metric("miou", "Mean intersection over union", "higher", "", 3),
        Metric("accuracy", "Pixel accuracy", "higher", "", 3),
        Metric("pq", "Panoptic quality of objects", "higher", "", 3),
        Metric("best_iou", "Mean of each object's best intersection over union", "higher", "", 3),
        Metric("f1", "F1 of edge pixels", "higher", "", 3),
        Metric("precision", "Precision of edge pixels", "higher", "", 3),
        Metric("recall", "Recall of edge pixels", "higher", "", 3),
        Metric("psnr", "Peak signal-to-noise ratio", "higher", "dB", 2),
        Metric("ssim", "Structural similarity", "higher", "", 3),
        Metric("mse", "Mean squared error, of values in [0, 1]", "lower", "", 4),
        Metric("epe", "End-point error, in pixels of the picture", "lower", "px", 2),
        Metric("outliers", "Pixels more than 3 px and 5 % off", "lower", "", 3),
        Metric("pck", "Joints within a tenth of the figure's size", "higher", "", 3),
        Metric("joint_distance", "Mean distance of joints, in sizes of the figure", "lower", "", 3),
        Metric("iou", "Intersection over union of boxes", "higher", "", 3),
        Metric("iou_50", "Boxes with an intersection over union above 0.5", "higher", "", 3),
    )
}

KIND_METRICS: dict[Kind, tuple[str, ...]] = {
    "depth": ("abs_rel", "delta1", "rmse"),
    "normals": ("mean_angle", "within_11_25", "within_30"),
    "labels": ("miou", "accuracy"),
    "instances": ("pq", "best_iou"),
    "mask": ("miou", "accuracy"),
    "edges": ("f1", "precision", "recall"),
    "image": ("psnr", "ssim", "mse"),
    "flow": ("epe", "outliers"),
    "keypoints": ("pck", "joint_distance"),
    "boxes": ("iou", "iou_50"),
}
"""The metrics of each kind; the first decides whether an answer is better than another."""

KIND_CLASSES: dict[Kind, tuple[str, ...]] = {"labels": tuple(CLASSES), "mask": MASK_CLASSES}
"""Names of the classes that a picture of these kinds tells apart; the labels' are those of rendered scenes."""


@dataclass(frozen=True)
class Measurement:
    """The metrics of one answer, or of many.

    `counts` is what pooled metrics are computed from, and adds up over answers: the confusion matrix (truth, prediction) of labels and
    masks; of edges the numbers of right and of all predicted pixels, then of found and of all true ones; of instances see `match_objects`.
    Other kinds have none.
    """

    values: dict[str, float]
    counts: Counts | None = None


def undefined(kind: Kind) -> dict[str, float]:
    """NaN for every metric of a kind: beats nothing and passes no gate."""
    return dict.fromkeys(KIND_METRICS[kind], math.nan)


def mean_of(kind: Kind, measurements: Sequence[Measurement]) -> Measurement:
    """The mean of each metric over the measurements that define it."""
    return Measurement({name: _mean([each.values[name] for each in measurements]) for name in KIND_METRICS[kind]})


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
