"""Metrics of pictures that part the pixels: labels, masks, edges and objects. They are counted, and the counts add up over answers.

Shapes: pictures (h, w, 3) uint8, clips (t, h, w, 3); maps the same without channels. An object of a clip is one through all its frames.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from lavin_dit.data.drawings import encodings
from lavin_dit.data.drawings.encodings import PALETTE
from lavin_dit.data.drawings.instance_colours import MAX_INSTANCES
from lavin_dit.data.drawings.palette import nearest_colour
from lavin_dit.data.pixels import Picture
from lavin_dit.data.world.layout import CLASSES
from lavin_dit.evaluation.measurement import MASK_CLASSES, Counts, Measurement, undefined

EDGE_REFERENCE_SIZE = 64
MATCH_IOU = 0.5


def measure_labels(prediction: Picture, truth: Picture) -> Measurement:
    """On labels. The prediction is read in the colours of the rendered scenes' classes and of the truth's own labels, no others.

    A published data set has more classes than our scenes, in the same palette; an answer is not asked to tell their colours apart
    from those that its data set does not hold. The matrix reaches to the highest label of them.
    """
    true = encodings.decode_labels(truth)
    known = np.union1d(np.arange(len(CLASSES)), true)
    predicted = known[nearest_colour(prediction, PALETTE[known])]
    return pool_confusion(confusion(predicted, true, int(known[-1]) + 1))


def measure_mask(prediction: Picture, truth: Picture) -> Measurement:
    """On background and foreground."""
    predicted, true = encodings.decode_mask(prediction), encodings.decode_mask(truth)
    return pool_confusion(confusion(predicted, true, len(MASK_CLASSES)))


def confusion(predicted: NDArray[np.generic], true: NDArray[np.generic], num_classes: int) -> NDArray[np.int64]:
    """Pixels of each (true, predicted) pair of classes. Shapes: equal maps, to (num_classes, num_classes)."""
    pairs = true.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(pairs.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def pool_confusion(counts: Counts) -> Measurement:
    """Metrics of a confusion matrix: mean IoU over the classes that the truth or the prediction holds, and pixel accuracy."""
    hits = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    is_present = union > 0
    miou = float((hits[is_present] / union[is_present]).mean())
    return Measurement({"miou": miou, "accuracy": float(hits.sum() / counts.sum())}, counts)


def measure_edges(prediction: Picture, truth: Picture) -> Measurement:
    """On edge pixels, which may be `edge_tolerance` off."""
    predicted, true = encodings.decode_edges(prediction), encodings.decode_edges(truth)
    reach = edge_tolerance(truth.shape[-3])
    near_truth, near_prediction = (_grow(edges, reach) for edges in (true, predicted))
    return pool_edges(np.array([(predicted & near_truth).sum(), predicted.sum(), (true & near_prediction).sum(), true.sum()], np.int64))


def edge_tolerance(size: int) -> int:
    """Pixels that an edge may be off, diagonals included: 1 at 64 pixels a side, and in proportion above."""
    return max(1, round(size / EDGE_REFERENCE_SIZE))


def _grow(edges: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    square = np.ones((1,) * (edges.ndim - 2) + (3, 3), np.bool_)
    return np.asarray(binary_dilation(edges, square, iterations=reach), np.bool_)


def pool_edges(counts: Counts) -> Measurement:
    """Precision and recall of edge pixels. Where the truth has no edge, recall and F1 are undefined; predicting none has precision 0."""
    right, num_predicted, found, num_true = (int(count) for count in counts)
    if num_true == 0:
        return Measurement(undefined("edges"), counts)
    precision, recall = right / max(num_predicted, 1), found / num_true
    f1 = 2 * precision * recall / (precision + recall) if right and found else 0.0
    return Measurement({"f1": f1, "precision": precision, "recall": recall}, counts)


def measure_instances(prediction: Picture, truth: Picture) -> Measurement:
    """On objects, whatever their colours: a prediction may number them as it likes, so long as it does so through all of a clip."""
    predicted, true = encodings.decode_instances(prediction), encodings.decode_instances(truth)
    return pool_instances(match_objects(confusion(predicted, true, MAX_INSTANCES + 1)))


def match_objects(overlap: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums over objects: IoUs of matched pairs; pairs; predicted ones without a pair; true ones without; best IoUs of true ones.

    Pairs match above half an IoU, so that no object has two. `overlap` holds the pixels of each (true, predicted) pair of numbers, 0 for
    background, which is no object.
    """
    true_sizes, predicted_sizes = overlap.sum(axis=1), overlap.sum(axis=0)
    union = true_sizes[:, None] + predicted_sizes - overlap
    iou = (overlap / np.maximum(union, 1))[1:, 1:]
    is_match = iou > MATCH_IOU
    num_matched, num_true, num_predicted = is_match.sum(), (true_sizes[1:] > 0).sum(), (predicted_sizes[1:] > 0).sum()
    return np.array(
        [iou[is_match].sum(), num_matched, num_predicted - num_matched, num_true - num_matched, iou.max(axis=1).sum()], np.float64
    )


def pool_instances(counts: Counts) -> Measurement:
    """Panoptic quality, with one class, and the mean best IoU of the true objects; undefined where there are none.

    Source: Kirillov et al., CVPR 2019; Pont-Tuset et al., TPAMI 2017 (best overlap).
    """
    matched_iou, num_matched, num_extra, num_missed, best_iou = (float(count) for count in counts)
    num_true = num_matched + num_missed
    if num_true == 0:
        return Measurement(undefined("instances"), counts)
    quality = matched_iou / (num_matched + (num_extra + num_missed) / 2)
    return Measurement({"pq": quality, "best_iou": best_iou / num_true}, counts)
