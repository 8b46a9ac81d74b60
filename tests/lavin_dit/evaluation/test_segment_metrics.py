import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lavin_dit.data.drawings import encodings
from lavin_dit.data.drawings.encodings import encode_instance_clip, encode_instances, encode_labels
from lavin_dit.data.tasks import TASKS
from lavin_dit.data.world.layout import CLASSES
from lavin_dit.evaluation.metrics import aggregate, measure
from lavin_dit.evaluation.segment_metrics import (
    confusion,
    edge_tolerance,
    match_objects,
    measure_edges,
    measure_instances,
    measure_labels,
    pool_confusion,
    pool_instances,
)

LABELS_OF_A_DATA_SET = 150


def one_edge(column: int) -> NDArray[np.uint8]:
    edges = np.zeros((16, 16), np.bool_)
    edges[:, column] = True
    return encodings.encode_edges(edges)


def bands(*widths: int, height: int = 8) -> NDArray[np.int64]:
    """Objects 1, 2, 3 … side by side, of so many columns; a negative width is background."""
    columns = [np.full(abs(width), name if width > 0 else 0) for name, width in enumerate(widths, 1)]
    return np.broadcast_to(np.concatenate(columns), (height, sum(map(abs, widths))))


def test_mean_iou_is_the_one_worked_out_by_hand() -> None:
    counts = confusion(np.array([[0, 0, 1, 1], [0, 1, 1, 3]]), np.array([[0, 0, 0, 1], [0, 1, 1, 1]]), 4)
    assert counts.tolist() == [[3, 1, 0, 0], [0, 3, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    values = pool_confusion(counts).values
    # Class 0: 3 of 4; class 1: 3 of 5; class 2 is nowhere; class 3 is predicted but never true.
    assert values["miou"] == pytest.approx((3 / 4 + 3 / 5 + 0) / 3)
    assert values["accuracy"] == pytest.approx(6 / 8)


def test_label_metrics_of_a_set_come_from_its_summed_confusion_not_from_a_mean_of_pictures() -> None:
    truths = [np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)]
    predictions = [truth.copy() for truth in truths]
    truths[1][0, 0], predictions[1][0, 0] = 2, 0
    measured = [measure_labels(encode_labels(predicted), encode_labels(true)) for predicted, true in zip(predictions, truths, strict=True)]
    pooled = aggregate(TASKS["semantic"], measured)
    assert pooled.values["miou"] == pytest.approx((31 / 32 + 0) / 2)
    assert pooled.values["miou"] != pytest.approx(np.mean([each.values["miou"] for each in measured]))
    assert pooled.counts is not None
    assert pooled.counts.sum() == 32
    assert pooled.counts.shape == (len(CLASSES), len(CLASSES))


def test_a_colour_near_a_class_counts_as_that_class() -> None:
    labels = np.arange(len(CLASSES), dtype=np.uint8).repeat(8).reshape(len(CLASSES), 8)
    truth = encode_labels(labels)
    noisy = np.clip(truth.astype(int) + np.random.default_rng(0).integers(-38, 39, truth.shape), 0, 255).astype(np.uint8)
    assert measure_labels(noisy, truth).values["accuracy"] == 1.0


@given(st.lists(st.integers(0, LABELS_OF_A_DATA_SET - 1), min_size=16, max_size=16))
def test_labels_of_any_data_set_are_told_apart(names: list[int]) -> None:
    true = np.array(names).reshape(4, 4)
    wrong = np.where(np.arange(16).reshape(4, 4) < 4, np.roll(true, 1), true)
    values = measure_labels(encode_labels(wrong), encode_labels(true)).values
    assert values["accuracy"] == pytest.approx((wrong == true).mean())


def test_answers_whose_labels_reach_differently_far_are_pooled() -> None:
    few, many = (encode_labels(np.full((4, 4), name)) for name in (2, 140))
    pooled = aggregate(TASKS["semantic"], [measure(TASKS["semantic"], few, few), measure(TASKS["semantic"], few, many)])
    assert pooled.values["accuracy"] == pytest.approx(0.5)
    assert pooled.counts is not None
    assert pooled.counts[2, 2] == pooled.counts[140, 2] == 16


def test_an_edge_one_pixel_off_is_found_and_one_three_pixels_off_is_not() -> None:
    assert measure_edges(one_edge(5), one_edge(4)).values["f1"] == 1.0
    assert measure_edges(one_edge(7), one_edge(4)).values["f1"] == 0.0


def test_an_edge_of_another_frame_is_not_found() -> None:
    empty = np.zeros_like(one_edge(4))
    assert measure_edges(np.stack([empty, one_edge(4)]), np.stack([one_edge(4), empty])).values["f1"] == 0.0


def test_the_tolerance_of_edges_grows_with_the_picture() -> None:
    assert [edge_tolerance(size) for size in (16, 64, 128, 256)] == [1, 1, 2, 4]


def test_an_answer_full_of_edges_finds_all_but_is_not_precise() -> None:
    values = measure_edges(np.full((16, 16, 3), 255, np.uint8), one_edge(4)).values
    assert values["recall"] == 1.0
    assert values["precision"] == pytest.approx(3 / 16)
    assert values["f1"] == pytest.approx(2 * (3 / 16) / (1 + 3 / 16))


def test_no_edges_where_there_are_some_score_zero() -> None:
    assert measure_edges(np.zeros((16, 16, 3), np.uint8), one_edge(4)).values == {"f1": 0.0, "precision": 0.0, "recall": 0.0}


def test_edges_found_where_there_are_none_still_cost_precision_over_the_set() -> None:
    empty = np.zeros((16, 16, 3), np.uint8)
    pooled = aggregate(TASKS["edges"], [measure_edges(one_edge(4), one_edge(4)), measure_edges(one_edge(9), empty)])
    assert pooled.values["recall"] == 1.0
    assert pooled.values["precision"] == 0.5


def test_panoptic_quality_is_the_one_worked_out_by_hand() -> None:
    true, predicted = bands(10, 10, 10, -10), bands(8, -2, -10, 14, -6)
    counts = match_objects(confusion(predicted, true, 8))
    # The first object is matched at 8 of 10 columns; the third at 10 of 14; the second is missed.
    assert counts.tolist() == pytest.approx([0.8 + 10 / 14, 2, 0, 1, 0.8 + 10 / 14])
    assert pool_instances(counts).values == pytest.approx({"pq": (0.8 + 10 / 14) / 2.5, "best_iou": (0.8 + 10 / 14) / 3})


def test_an_object_in_two_halves_is_no_match_and_two_too_many() -> None:
    values = measure_instances(encode_instances(bands(10, 10, -10)), encode_instances(bands(20, -10))).values
    assert values == pytest.approx({"pq": 0.0, "best_iou": 0.5})


@given(st.permutations(range(1, 6)))
def test_how_objects_are_numbered_does_not_matter(names: list[int]) -> None:
    truth = encode_instances(bands(6, 6, 6, 6, 6))
    shuffled = encodings.PALETTE[np.array([0, *names])[bands(6, 6, 6, 6, 6)]]
    assert measure_instances(shuffled, truth).values == {"pq": 1.0, "best_iou": 1.0}


def test_objects_that_change_their_colours_from_frame_to_frame_are_wrong_in_a_clip() -> None:
    truth = encode_instance_clip(np.stack([bands(10, 10, -4), bands(10, 10, -4)]))
    swapped = truth.copy()
    swapped[1, :, :10], swapped[1, :, 10:20] = truth[1, :, 10:20], truth[1, :, :10]
    assert measure_instances(swapped[1], truth[1]).values["pq"] == 1.0
    assert measure_instances(swapped, truth).values["pq"] == 0.0


def test_objects_found_where_there_are_none_still_cost_quality_over_the_set() -> None:
    objects, empty = encode_instances(bands(10, -10)), encode_instances(bands(-20))
    right, extra = measure_instances(objects, objects), measure_instances(objects, empty)
    assert math.isnan(extra.values["pq"])
    assert aggregate(TASKS["instances"], [right, extra]).values["pq"] == pytest.approx(1 / 1.5)
