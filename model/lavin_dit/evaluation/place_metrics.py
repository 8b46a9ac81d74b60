"""Metrics of pictures that show where things are: joints and boxes. Shapes: pictures (h, w, 3) uint8."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lavin_dit.data.drawings.boxes import box_iou
from lavin_dit.data.drawings.encodings import find_box
from lavin_dit.data.drawings.skeletons import Peaks, disc_radius, find_peaks
from lavin_dit.data.pixels import Picture
from lavin_dit.evaluation.measurement import Measurement, undefined

WITHIN_SHARE = 0.1
MATCH_IOU = 0.5


def measure_keypoints(prediction: Picture, truth: Picture) -> Measurement:
    """On the joints that the truth shows, of all its figures. Distances are in sizes of the true figure, 1 for a joint not found.

    Source: Yang and Ramanan, TPAMI 2013 (PCK): the size of a figure is the longer side of the box around it.
    """
    predicted, true = find_peaks(prediction), find_peaks(truth)
    if not len(true.joints):
        return Measurement(undefined("keypoints"))
    distances = joint_distances(predicted, true, _figure_sizes(true, disc_radius(*truth.shape[:2])))
    return Measurement({"pck": float((distances <= WITHIN_SHARE).mean()), "joint_distance": float(distances.mean())})


def joint_distances(predicted: Peaks, true: Peaks, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each true joint is from the prediction's, one to one, at most 1; of a kind of joint no more are looked at than are true.

    Shapes: sizes (n,), to (n,).
    """
    distances = np.ones(len(true.joints))
    for joint in np.unique(true.joints):
        ours = np.flatnonzero(true.joints == joint)
        theirs = np.flatnonzero(predicted.joints == joint)[: len(ours)]
        apart = np.linalg.norm(true.places[ours, None] - predicted.places[theirs], axis=-1) / sizes[ours, None]
        rows, columns = linear_sum_assignment(np.minimum(apart, 1.0))
        distances[ours[rows]] = np.minimum(apart[rows, columns], 1.0)
    return distances


def measure_boxes(prediction: Picture, truth: Picture) -> Measurement:
    """On the one box of each picture; a prediction without one has no intersection."""
    predicted, true = find_box(prediction), find_box(truth)
    if true is None:
        return Measurement(undefined("boxes"))
    iou = 0.0 if predicted is None else box_iou(predicted, true)
    return Measurement({"iou": iou, "iou_50": float(iou > MATCH_IOU)})


def figures_of(peaks: Peaks) -> NDArray[np.intp]:
    """Which figure each joint is of: pieces that hidden joints have parted go to the nearest that hold no joint twice. Shapes: to (n,)."""
    figures = peaks.pieces.copy()
    held = {figure: set(peaks.joints[figures == figure].tolist()) for figure in figures.tolist()}
    one, other = np.triu_indices(len(figures), 1)
    nearest_first = np.argsort(np.linalg.norm(peaks.places[one] - peaks.places[other], axis=-1), kind="stable")
    for first, second in zip(one[nearest_first], other[nearest_first], strict=True):
        kept, merged = int(figures[first]), int(figures[second])
        if kept != merged and held[kept].isdisjoint(held[merged]):
            held[kept] |= held.pop(merged)
            figures[figures == merged] = kept
    return figures


def _figure_sizes(peaks: Peaks, radius: float) -> NDArray[np.float64]:
    """The longer side of the box around each joint's figure, discs and all. Shapes: to (n,)."""
    figures, sizes = figures_of(peaks), np.empty(len(peaks.joints))
    for figure in np.unique(figures):
        is_part = figures == figure
        sizes[is_part] = np.ptp(peaks.places[is_part], axis=0).max() + 2 * radius
    return sizes
