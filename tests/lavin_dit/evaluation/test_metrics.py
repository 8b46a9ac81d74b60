import math
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from lavin_dit.data.drawings import encodings
from lavin_dit.data.tasks import TASKS, Kind, Task, task_of
from lavin_dit.data.world.figures import NUM_JOINTS
from lavin_dit.evaluation.measurement import mean_of
from lavin_dit.evaluation.metrics import (
    KIND_METRICS,
    MEASURES,
    METRICS,
    PSNR_CAP_DB,
    Measurement,
    aggregate,
    is_better,
    measure,
    primary_metric,
    score,
    undefined,
)

SIZE, NUM_FRAMES = 32, 5
KINDS: tuple[Kind, ...] = get_args(Kind)
BEST = {"psnr": PSNR_CAP_DB}
UNDEFINED_KINDS: tuple[Kind, ...] = ("normals", "instances", "edges", "keypoints", "boxes")


def task_with(kind: Kind) -> Task:
    return Task("a_task", "A task", "Made for a test.", kind)


def best(kind: Kind) -> dict[str, float]:
    """What a perfect answer scores."""
    return {name: BEST.get(name, 0.0 if METRICS[name].better == "lower" else 1.0) for name in KIND_METRICS[kind]}


def frame(kind: Kind, step: int = 0) -> NDArray[np.uint8]:
    """A target of each kind, in which something is 3 + `step` pixels from the left."""
    is_thing = np.zeros((SIZE, SIZE), np.bool_)
    left, right, top, bottom = 3 + step, 15 + step, 6, 20
    is_thing[top:bottom, left:right] = True
    gradient = np.linspace(1.5, 30.0, SIZE)[:, None] * np.ones(SIZE)
    joints = np.zeros((1, NUM_JOINTS, 3))
    joints[0, :4] = (left, top, 1), (right, top, 1), (left, bottom, 1), (right, bottom, 1)
    return {
        "depth": lambda: encodings.encode_depth(np.where(is_thing, 4.0, gradient)),
        "normals": lambda: encodings.encode_normals(np.stack([0 * gradient, is_thing, ~is_thing], axis=-1)),
        "labels": lambda: encodings.encode_labels(is_thing * 3),
        "instances": lambda: encodings.encode_instances(is_thing * 7),
        "mask": lambda: encodings.encode_mask(is_thing),
        "edges": lambda: encodings.encode_edges(is_thing ^ np.roll(is_thing, 1, axis=1)),
        "image": lambda: (
            np.repeat((gradient * 8).astype(np.uint8)[..., None], 3, axis=-1) // np.where(is_thing, 2, 1)[..., None].astype(np.uint8)
        ),
        "flow": lambda: encodings.encode_flow(np.stack([is_thing * 3.0, gradient / 20], axis=-1)),
        "keypoints": lambda: encodings.draw_skeletons(joints, SIZE, SIZE),
        "boxes": lambda: encodings.draw_box((left, top, right, bottom), SIZE, SIZE),
    }[kind]()


def clip(kind: Kind) -> NDArray[np.uint8]:
    return np.stack([frame(kind, step) for step in range(NUM_FRAMES)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [frame, clip])
def test_the_truth_itself_scores_perfectly(kind: Kind, target: type) -> None:
    truth = target(kind)
    measured = measure(task_with(kind), truth, truth)
    assert measured.values == pytest.approx(best(kind), abs=1e-6)
    assert aggregate(task_with(kind), [measured, measured]).values == pytest.approx(measured.values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [frame, clip])
def test_noise_grey_and_the_negative_are_far_from_the_truth(kind: Kind, target: type) -> None:
    truth, task = target(kind), task_with(kind)
    noise = np.random.default_rng(0).integers(0, 256, truth.shape).astype(np.uint8)
    for answer in (noise, np.full_like(truth, 128), 255 - truth):
        values = score(task, answer, truth)
        name = primary_metric(task).name
        assert is_better(METRICS[name], best(kind)[name], values[name])
        if METRICS[name].better == "higher":
            assert values[name] < 0.7 * best(kind)[name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_is_a_pixel_off_is_worse_than_the_truth_and_better_than_one_that_is_ten_off(kind: Kind) -> None:
    task, own = task_with(kind), primary_metric(task_with(kind))
    exact, near, far = (score(task, frame(kind, step), frame(kind))[own.name] for step in (0, 1, 10))
    assert not is_better(own, near, exact)
    assert is_better(own, near, far)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_whose_frames_are_all_alike_is_measured_like_one_of_them(kind: Kind) -> None:
    truth, answer = frame(kind), frame(kind, step=2)
    clips = (np.repeat(picture[None], NUM_FRAMES, axis=0) for picture in (answer, truth))
    assert score(task_with(kind), *clips) == pytest.approx(score(task_with(kind), answer, truth))


@pytest.mark.parametrize("kind", UNDEFINED_KINDS)
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (NUM_FRAMES, SIZE, SIZE)])
def test_where_the_truth_holds_nothing_there_is_nothing_to_measure(kind: Kind, shape: tuple[int, ...]) -> None:
    empty = encodings.encode_normals(np.zeros((*shape, 3))) if kind == "normals" else np.zeros((*shape, 3), np.uint8)
    answer = np.broadcast_to(frame(kind), empty.shape)
    assert all(math.isnan(value) for value in score(task_with(kind), answer, empty).values())


def test_every_metric_of_every_kind_is_described_and_every_task_has_a_kind_that_is_measured() -> None:
    named = [name for names in KIND_METRICS.values() for name in names]
    assert set(named) == set(METRICS)
    assert {task.kind for task in TASKS.values()} == set(KIND_METRICS) == set(MEASURES) == set(KINDS)


def test_an_unknown_task_is_measured_as_pictures() -> None:
    assert primary_metric(task_of("my-own-pairs")).name == "psnr"


def test_a_mean_leaves_out_what_is_undefined_and_is_undefined_where_all_is() -> None:
    known = Measurement({"mean_angle": 10.0, "within_11_25": 1.0, "within_30": 1.0})
    unknown = Measurement(undefined("normals"))
    assert aggregate(TASKS["normals"], [known, unknown]).values == mean_of("normals", [known, unknown]).values == known.values
    assert math.isnan(aggregate(TASKS["normals"], [unknown, unknown]).values["mean_angle"])


def test_nan_beats_nothing_and_nothing_beats_it() -> None:
    for metric in METRICS.values():
        assert not is_better(metric, math.nan, 1.0)
        assert not is_better(metric, 1.0, math.nan)
        assert not is_better(metric, 1.0, 1.0)
