"""How answers are measured: each kind of task by the field's own metrics, on decoded maps where the picture stands for one.

Shapes: pictures (h, w, 3) uint8, clips (t, h, w, 3) uint8.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lavin_dit.data.pixels import Picture
from lavin_dit.data.tasks import Kind, Task
from lavin_dit.evaluation.map_metrics import PSNR_CAP_DB, measure_depth, measure_flow, measure_image, measure_normals, psnr_of
from lavin_dit.evaluation.measurement import KIND_CLASSES, KIND_METRICS, METRICS, Counts, Measurement, Metric, mean_of, undefined
from lavin_dit.evaluation.place_metrics import measure_boxes, measure_keypoints
from lavin_dit.evaluation.segment_metrics import (
    measure_edges,
    measure_instances,
    measure_labels,
    measure_mask,
    pool_confusion,
    pool_edges,
    pool_instances,
)

__all__ = [
    "KIND_CLASSES",
    "KIND_METRICS",
    "MEASURES",
    "METRICS",
    "PSNR_CAP_DB",
    "Measurement",
    "Metric",
    "aggregate",
    "is_better",
    "measure",
    "pool_confusion",
    "primary_metric",
    "psnr_of",
    "score",
    "undefined",
]

Measure = Callable[[Picture, Picture], Measurement]


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
    """Measures one answer; a metric that the truth leaves undefined (no surface, edge, object, joint or box) is NaN.

    Of a clip with frames that are given, only those that were to be found count.
    Shapes: both (h, w, 3) or both (t, h, w, 3), equal.
    """
    assert prediction.shape == truth.shape, f"prediction {prediction.shape} and truth {truth.shape} differ in shape"
    if task.unknown_frames is not None:
        found = task.unknown_frames(len(truth))
        prediction, truth = prediction[found], truth[found]
    return MEASURES[task.kind](prediction, truth)


def aggregate(task: Task, measurements: Sequence[Measurement]) -> Measurement:
    """The metrics of a set of answers: from the summed counts where there are any, else the mean over the answers that define them."""
    counts = [measurement.counts for measurement in measurements if measurement.counts is not None]
    return POOLS[task.kind](_total(counts)) if counts else mean_of(task.kind, measurements)


def _total(counts: Sequence[Counts]) -> Counts:
    """The sum; confusion matrices that reach to different labels are as large as the largest."""
    shape = np.max([each.shape for each in counts], axis=0)
    return np.asarray(np.sum([np.pad(each, [(0, extent) for extent in shape - each.shape]) for each in counts], axis=0))


def _in_every_frame(kind: Kind, measure_picture: Measure) -> Measure:
    """Measures a clip by the mean over its frames, and a picture as such."""

    def measure_either(prediction: Picture, truth: Picture) -> Measurement:
        if truth.ndim == 3:
            return measure_picture(prediction, truth)
        return mean_of(kind, [measure_picture(*frames) for frames in zip(prediction, truth, strict=True)])

    return measure_either


MEASURES: dict[Kind, Measure] = {
    "depth": measure_depth,
    "normals": measure_normals,
    "labels": measure_labels,
    "instances": measure_instances,
    "mask": measure_mask,
    "edges": measure_edges,
    "image": measure_image,
    "flow": measure_flow,
    "keypoints": _in_every_frame("keypoints", measure_keypoints),
    "boxes": _in_every_frame("boxes", measure_boxes),
}

POOLS: dict[Kind, Callable[[Counts], Measurement]] = {
    "labels": pool_confusion,
    "instances": pool_instances,
    "mask": pool_confusion,
    "edges": pool_edges,
}
