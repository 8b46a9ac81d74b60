import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lavin_dit.data import encodings
from lavin_dit.data.layout import CLASSES
from lavin_dit.data.scenes import render_scene
from lavin_dit.data.tasks import TASKS, ImagePair, generator_of, pair_of_scene, task_of
from lavin_dit.evaluation import metrics
from lavin_dit.evaluation.metrics import METRICS, PSNR_CAP_DB, aggregate, is_better, measure, primary_metric, score

SIZE = 32
PERFECT = {
    "abs_rel": 0.0,
    "delta1": 1.0,
    "rmse": 0.0,
    "mean_angle": 0.0,
    "within_11_25": 1.0,
    "within_30": 1.0,
    "miou": 1.0,
    "accuracy": 1.0,
    "f1": 1.0,
    "precision": 1.0,
    "recall": 1.0,
    "psnr": PSNR_CAP_DB,
    "ssim": 1.0,
    "mse": 0.0,
}


def pair(name: str, index: int = 0) -> ImagePair:
    return pair_of_scene(TASKS[name], render_scene(0, index, SIZE), generator_of(0, name, f"scene-{index}"))


def one_edge(column: int) -> NDArray[np.uint8]:
    edges = np.zeros((16, 16), np.bool_)
    edges[:, column] = True
    return encodings.encode_edges(edges)


@pytest.mark.parametrize("name", TASKS)
def test_the_truth_itself_scores_perfectly(name: str) -> None:
    truth = pair(name).target
    values = score(TASKS[name], truth, truth)
    assert values == pytest.approx({metric: PERFECT[metric] for metric in values}, abs=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_the_query_unchanged_is_worse_than_the_truth(name: str) -> None:
    task, shown = TASKS[name], pair(name)
    own = primary_metric(task)
    perfect, unchanged = (score(task, picture, shown.target)[own.name] for picture in (shown.target, shown.input))
    assert is_better(own, perfect, unchanged)
    assert not is_better(own, unchanged, perfect)


def test_every_metric_of_every_kind_is_described_and_every_task_has_a_kind_that_is_measured() -> None:
    named = [name for names in metrics.KIND_METRICS.values() for name in names]
    assert set(named) == set(METRICS) == set(PERFECT)
    assert {task.kind for task in TASKS.values()} == set(metrics.KIND_METRICS) == set(metrics.MEASURES)


def test_depth_that_is_ten_percent_too_far_has_an_absolute_relative_error_of_a_tenth() -> None:
    true = np.geomspace(1.0, 20.0, SIZE * SIZE).reshape(SIZE, SIZE)
    errors = metrics.depth_errors(true * 1.1, true)
    assert errors["abs_rel"] == pytest.approx(0.1)
    assert errors["delta1"] == 1.0
    assert errors["rmse"] == pytest.approx(0.1 * math.sqrt(np.square(true).mean()))


def test_depth_pictures_are_measured_in_metres() -> None:
    true = np.geomspace(1.5, 20.0, SIZE * SIZE).reshape(SIZE, SIZE)
    values = score(TASKS["depth"], encodings.encode_depth(true * 1.1), encodings.encode_depth(true))
    assert values["abs_rel"] == pytest.approx(0.1, abs=0.005)


def test_depth_within_a_factor_counts_the_pixels_that_are() -> None:
    true = np.full((2, 2), 4.0)
    assert metrics.depth_errors(np.array([[4.0, 4.9], [5.1, 3.1]]), true)["delta1"] == 0.5


def test_a_sky_that_is_answered_too_near_is_an_error_of_depth() -> None:
    sky, near = (encodings.encode_depth(np.full((SIZE, SIZE), metres)) for metres in (encodings.DEPTH_FAR_M, 16.0))
    assert score(TASKS["depth"], near, sky)["abs_rel"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("degrees", [0.01, 10.0, 45.0, 170.0])
def test_normals_turned_by_an_angle_are_off_by_that_angle(degrees: float) -> None:
    generator = np.random.default_rng(0)
    true = generator.standard_normal((8, 8, 3))
    true /= np.linalg.norm(true, axis=-1, keepdims=True)
    axis = np.cross(true, generator.standard_normal((8, 8, 3)))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = math.radians(degrees)
    turned = math.cos(angle) * true + math.sin(angle) * np.cross(axis, true)
    errors = metrics.angle_errors(turned, true)
    assert errors["mean_angle"] == pytest.approx(degrees, rel=1e-6)
    assert errors["within_11_25"] == float(degrees < 11.25)
    assert errors["within_30"] == float(degrees < 30)


def test_normals_count_surfaces_only_and_no_normal_at_all_is_ninety_degrees_off() -> None:
    true = np.zeros((1, 4, 3))
    true[0, :2] = (0.0, 0.0, 1.0)
    predicted = np.zeros((1, 4, 3))
    predicted[0, 0] = (0.0, 0.0, 1.0)
    predicted[0, 2:] = (1.0, 0.0, 0.0)
    assert metrics.angle_errors(predicted, true)["mean_angle"] == pytest.approx(45.0)


def test_normals_of_an_empty_sky_are_undefined() -> None:
    sky = encodings.encode_normals(np.zeros((SIZE, SIZE, 3)))
    assert all(math.isnan(value) for value in score(TASKS["normals"], sky, sky).values())


def test_mean_iou_is_the_one_worked_out_by_hand() -> None:
    counts = metrics.confusion(np.array([[0, 0, 1, 1], [0, 1, 1, 3]]), np.array([[0, 0, 0, 1], [0, 1, 1, 1]]), 4)
    assert counts.tolist() == [[3, 1, 0, 0], [0, 3, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    values = metrics.pool_confusion(counts).values
    # Class 0: 3 of 4; class 1: 3 of 5; class 2 is nowhere; class 3 is predicted but never true.
    assert values["miou"] == pytest.approx((3 / 4 + 3 / 5 + 0) / 3)
    assert values["accuracy"] == pytest.approx(6 / 8)


def test_label_metrics_of_a_set_come_from_its_summed_confusion_not_from_a_mean_of_pictures() -> None:
    task = TASKS["semantic"]
    truths = [np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)]
    predictions = [truth.copy() for truth in truths]
    truths[1][0, 0], predictions[1][0, 0] = 2, 0
    measured = [
        measure(task, encodings.encode_labels(predicted), encodings.encode_labels(true))
        for predicted, true in zip(predictions, truths, strict=True)
    ]
    pooled = aggregate(task, measured)
    assert pooled.values["miou"] == pytest.approx((31 / 32 + 0) / 2)
    assert pooled.values["miou"] != pytest.approx(np.mean([each.values["miou"] for each in measured]))
    assert pooled.counts is not None
    assert pooled.counts.sum() == 32
    assert pooled.counts.shape == (len(CLASSES), len(CLASSES))


def test_a_colour_near_a_class_counts_as_that_class() -> None:
    labels = np.arange(len(CLASSES), dtype=np.uint8).repeat(8).reshape(len(CLASSES), 8)
    truth = encodings.encode_labels(labels)
    noisy = np.clip(truth.astype(int) + np.random.default_rng(0).integers(-40, 41, truth.shape), 0, 255).astype(np.uint8)
    assert score(TASKS["semantic"], noisy, truth)["accuracy"] == 1.0


def test_an_edge_one_pixel_off_is_found_and_one_three_pixels_off_is_not() -> None:
    task = TASKS["edges"]
    assert score(task, one_edge(5), one_edge(4))["f1"] == 1.0
    assert score(task, one_edge(7), one_edge(4))["f1"] == 0.0


def test_the_tolerance_of_edges_grows_with_the_picture() -> None:
    assert [metrics.edge_tolerance(size) for size in (16, 64, 128, 256)] == [1, 1, 2, 4]


def test_an_answer_full_of_edges_finds_all_but_is_not_precise() -> None:
    values = score(TASKS["edges"], np.full((16, 16, 3), 255, np.uint8), one_edge(4))
    assert values["recall"] == 1.0
    assert values["precision"] == pytest.approx(3 / 16)
    assert values["f1"] == pytest.approx(2 * (3 / 16) / (1 + 3 / 16))


def test_no_edges_where_there_are_some_score_zero_and_where_there_are_none_the_score_is_undefined() -> None:
    empty = np.zeros((16, 16, 3), np.uint8)
    assert score(TASKS["edges"], empty, one_edge(4)) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert all(math.isnan(value) for value in score(TASKS["edges"], one_edge(4), empty).values())


def test_edges_found_where_there_are_none_still_cost_precision_over_the_set() -> None:
    task, empty = TASKS["edges"], np.zeros((16, 16, 3), np.uint8)
    pooled = aggregate(task, [measure(task, one_edge(4), one_edge(4)), measure(task, one_edge(9), empty)])
    assert pooled.values["recall"] == 1.0
    assert pooled.values["precision"] == 0.5


def test_psnr_of_a_known_error_is_the_formula_and_that_of_equal_pictures_is_the_cap() -> None:
    truth = np.full((16, 16, 3), 100, np.uint8)
    values = score(task_of("my-own-pairs"), truth + np.uint8(51), truth)
    assert values["mse"] == pytest.approx(0.04)
    assert values["psnr"] == pytest.approx(-10 * math.log10(0.04))
    assert metrics.psnr_of(0.0) == metrics.psnr_of(1e-12) == PSNR_CAP_DB


def test_an_unknown_task_is_measured_as_pictures() -> None:
    assert primary_metric(task_of("my-own-pairs")).name == "psnr"


def test_a_mean_leaves_out_what_is_undefined_and_is_undefined_where_all_is() -> None:
    task = TASKS["normals"]
    known = metrics.Measurement({"mean_angle": 10.0, "within_11_25": 1.0, "within_30": 1.0})
    unknown = metrics.Measurement(metrics.undefined("normals"))
    assert aggregate(task, [known, unknown]).values == known.values
    assert math.isnan(aggregate(task, [unknown, unknown]).values["mean_angle"])


def test_nan_beats_nothing_and_nothing_beats_it() -> None:
    for metric in METRICS.values():
        assert not is_better(metric, math.nan, 1.0)
        assert not is_better(metric, 1.0, math.nan)
        assert not is_better(metric, 1.0, 1.0)
