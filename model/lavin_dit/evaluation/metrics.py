"""How answers are measured: each kind of task by the field's own metrics, on decoded maps where the picture stands for one.

Shapes: pictures (h, w, 3) uint8; maps (h, w) or (h, w, 3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.metrics import structural_similarity

from lavin_dit.data import encodings
from lavin_dit.data.layout import CLASSES
from lavin_dit.data.tasks import Kind, Task

Picture = NDArray[np.uint8]
Counts = NDArray[np.int64]
Better = Literal["lower", "higher"]

PSNR_CAP_DB = 60.0
"""PSNR of pictures that are equal, or nearly: the true value is infinite, and one such picture would swallow a mean."""
WITHIN_DEPTH_RATIO = 1.25
EDGE_REFERENCE_SIZE = 64
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
        Metric("f1", "F1 of edge pixels", "higher", "", 3),
        Metric("precision", "Precision of edge pixels", "higher", "", 3),
        Metric("recall", "Recall of edge pixels", "higher", "", 3),
        Metric("psnr", "Peak signal-to-noise ratio", "higher", "dB", 2),
        Metric("ssim", "Structural similarity", "higher", "", 3),
        Metric("mse", "Mean squared error, of values in [0, 1]", "lower", "", 4),
    )
}

KIND_METRICS: dict[Kind, tuple[str, ...]] = {
    "depth": ("abs_rel", "delta1", "rmse"),
    "normals": ("mean_angle", "within_11_25", "within_30"),
    "labels": ("miou", "accuracy"),
    "mask": ("miou", "accuracy"),
    "edges": ("f1", "precision", "recall"),
    "image": ("psnr", "ssim", "mse"),
}
"""The metrics of each kind; the first decides whether an answer is better than another."""

KIND_CLASSES: dict[Kind, tuple[str, ...]] = {"labels": tuple(CLASSES), "mask": MASK_CLASSES}
"""Names of the classes that a picture of these kinds tells apart."""


@dataclass(frozen=True)
class Measurement:
    """The metrics of one answer, or of many.

    `counts` is what pooled metrics are computed from, and adds up over answers: the confusion matrix (truth, prediction) of labels and
    masks; of edges the numbers of right and of all predicted pixels, then of found and of all true ones. Other kinds have none.
    """

    values: dict[str, float]
    counts: Counts | None = None


def primary_metric(task: Task) -> Metric:
    """The task's own metric, by which it is compared with the baselines."""
    return METRICS[KIND_METRICS[task.kind][0]]


def is_better(metric: Metric, value: float, other: float) -> bool:
    """Whether `value` beats `other`; a tie or NaN on either side does not."""
    return value < other if metric.better == "lower" else value > other


def score(task: Task, prediction: Picture, truth: Picture) -> dict[str, float]:
    """The metrics of one answer. See `measure`."""
    return measure(task, prediction, truth).values


def measure(task: Task, prediction: Picture, truth: Picture) -> Measurement:
    """Measures one answer; a metric that the truth leaves undefined (no surface, no edge) is NaN.

    Shapes: both (h, w, 3), equal.
    """
    assert prediction.shape == truth.shape, f"prediction {prediction.shape} and truth {truth.shape} differ in shape"
    return MEASURES[task.kind](prediction, truth)


def aggregate(task: Task, measurements: Sequence[Measurement]) -> Measurement:
    """The metrics of a set of answers: from the summed counts where there are any, else the mean over the answers that define them."""
    counts = [measurement.counts for measurement in measurements if measurement.counts is not None]
    if counts:
        return POOLS[task.kind](np.sum(counts, axis=0))
    return Measurement({name: _mean([each.values[name] for each in measurements]) for name in KIND_METRICS[task.kind]})


def undefined(kind: Kind) -> dict[str, float]:
    """NaN for every metric of a kind: beats nothing and passes no gate."""
    return dict.fromkeys(KIND_METRICS[kind], math.nan)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _measure_depth(prediction: Picture, truth: Picture) -> Measurement:
    """On metres. Sky is at the far plane and counts as such: an answer that puts it nearer is wrong there like anywhere else."""
    predicted, true = (encodings.decode_depth(picture).astype(np.float64) for picture in (prediction, truth))
    return Measurement(depth_errors(predicted, true))


def depth_errors(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Errors of depth maps. Units: metres, above 0. Source: Eigen et al., NIPS 2014 (without their rescaling)."""
    error = np.abs(predicted - true)
    ratio = np.maximum(predicted / true, true / predicted)
    return {
        "abs_rel": float((error / true).mean()),
        "delta1": float((ratio < WITHIN_DEPTH_RATIO).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
    }


def _measure_normals(prediction: Picture, truth: Picture) -> Measurement:
    predicted, true = (encodings.decode_normals(picture).astype(np.float64) for picture in (prediction, truth))
    return Measurement(angle_errors(predicted, true))


def angle_errors(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Angles between normals, where the truth has a surface (its vector is not zero); no normal at all counts as 90 degrees off.

    Shapes: (h, w, 3). Source: Fouhey et al., ICCV 2013.
    """
    has_surface = true.any(axis=-1)
    if not has_surface.any():
        return undefined("normals")
    ours, theirs = predicted[has_surface], true[has_surface]
    # The arc tangent stays exact at small angles, where the arc cosine of a rounded dot product does not.
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(ours, theirs), axis=-1), (ours * theirs).sum(axis=-1)))
    angles[~ours.any(axis=-1)] = 90.0
    return {
        "mean_angle": float(angles.mean()),
        "within_11_25": float((angles < 11.25).mean()),
        "within_30": float((angles < 30.0).mean()),
    }


def _measure_labels(prediction: Picture, truth: Picture) -> Measurement:
    predicted, true = (encodings.decode_labels(picture, num_labels=len(CLASSES)) for picture in (prediction, truth))
    return pool_confusion(confusion(predicted, true, len(CLASSES)))


def _measure_mask(prediction: Picture, truth: Picture) -> Measurement:
    predicted, true = encodings.decode_mask(prediction), encodings.decode_mask(truth)
    return pool_confusion(confusion(predicted, true, len(MASK_CLASSES)))


def confusion(predicted: NDArray[np.generic], true: NDArray[np.generic], num_classes: int) -> Counts:
    """Pixels of each (true, predicted) pair of classes. Shapes: maps (h, w), to (num_classes, num_classes)."""
    pairs = true.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(pairs.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def pool_confusion(counts: Counts) -> Measurement:
    """Metrics of a confusion matrix: mean IoU over the classes that the truth or the prediction holds, and pixel accuracy."""
    hits = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    is_present = union > 0
    miou = float((hits[is_present] / union[is_present]).mean())
    return Measurement({"miou": miou, "accuracy": float(hits.sum() / counts.sum())}, counts)


def _measure_edges(prediction: Picture, truth: Picture) -> Measurement:
    predicted, true = encodings.decode_edges(prediction), encodings.decode_edges(truth)
    reach = edge_tolerance(truth.shape[0])
    near_truth, near_prediction = (_grow(edges, reach) for edges in (true, predicted))
    return pool_edges(np.array([(predicted & near_truth).sum(), predicted.sum(), (true & near_prediction).sum(), true.sum()], np.int64))


def edge_tolerance(size: int) -> int:
    """Pixels that an edge may be off, diagonals included: 1 at 64 pixels a side, and in proportion above."""
    return max(1, round(size / EDGE_REFERENCE_SIZE))


def _grow(edges: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    return np.asarray(binary_dilation(edges, np.ones((3, 3), np.bool_), iterations=reach), np.bool_)


def pool_edges(counts: Counts) -> Measurement:
    """Precision and recall of edge pixels. Where the truth has no edge, recall and F1 are undefined; predicting none has precision 0."""
    right, num_predicted, found, num_true = (int(count) for count in counts)
    if num_true == 0:
        return Measurement(undefined("edges"), counts)
    precision, recall = right / max(num_predicted, 1), found / num_true
    f1 = 2 * precision * recall / (precision + recall) if right and found else 0.0
    return Measurement({"f1": f1, "precision": precision, "recall": recall}, counts)


def _measure_image(prediction: Picture, truth: Picture) -> Measurement:
    mse = float(np.square(prediction / 255.0 - truth / 255.0).mean())
    # Source: Wang et al., 2004: Gaussian windows of width 1.5.
    ssim = structural_similarity(  # type: ignore[no-untyped-call]
        truth, prediction, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return Measurement({"psnr": psnr_of(mse), "ssim": float(ssim), "mse": mse})


def psnr_of(mse: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]; at most `PSNR_CAP_DB`, which equal pictures get."""
    return min(PSNR_CAP_DB, -10.0 * math.log10(mse)) if mse > 0 else PSNR_CAP_DB


MEASURES: dict[Kind, Callable[[Picture, Picture], Measurement]] = {
    "depth": _measure_depth,
    "normals": _measure_normals,
    "labels": _measure_labels,
    "mask": _measure_mask,
    "edges": _measure_edges,
    "image": _measure_image,
}

POOLS: dict[Kind, Callable[[Counts], Measurement]] = {"labels": pool_confusion, "mask": pool_confusion, "edges": pool_edges}
