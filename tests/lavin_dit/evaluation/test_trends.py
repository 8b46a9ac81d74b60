import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.evaluation.results import LOSS
from lavin_dit.evaluation.trends import Curve, Score, difference, estimate, trends_document, within_scenes

SCENES = [f"scene-{number}" for number in range(12)]
HARDNESS = dict(zip(SCENES, np.random.default_rng(0).normal(0.0, 5.0, len(SCENES)), strict=True))
NOISE = np.random.default_rng(1)


def curve(size: str, num_parameters: int, *, gain: float, noise: float = 0.01) -> Curve:
    """A model whose loss is what a scene costs anybody, less its own gain and what each pair brings."""
    scores = []
    for task, metric in (("depth", "abs_rel"), ("denoising", "psnr")):
        for count in (0, 2):
            for scene in SCENES:
                value = HARDNESS[scene] - gain - 0.1 * count + NOISE.normal(0.0, noise)
                scores.append(Score(count, task, scene, LOSS, value, math.nan, math.nan))
                scores.append(Score(count, task, scene, metric, 1.0 + value, 0.5, 2.0))
    return Curve(size, num_parameters, 1e-3, 0.1, ("denoising",), scores)


def test_a_mean_has_the_error_of_a_mean() -> None:
    found = estimate({"a": 1.0, "b": 2.0, "c": 3.0})
    assert (found.mean, found.error, found.num_scenes) == (2.0, pytest.approx(1 / math.sqrt(3)), 3)
    assert found.reach == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_nothing_and_one_scene_are_sure_of_nothing() -> None:
    assert math.isnan(estimate({}).mean)
    assert not estimate({}).is_sure
    assert estimate({"a": 3.0}).mean == 3.0
    assert not estimate({"a": 3.0}).is_sure


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.floats(-10, 10))
def test_a_difference_is_what_every_scene_gained(levels: list[float], gain: float) -> None:
    before = {str(number): level for number, level in enumerate(levels)}
    found = difference(before, {scene: level + gain for scene, level in before.items()})
    assert found.mean == pytest.approx(gain, abs=1e-9)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_scenes_that_only_one_side_knows_do_not_count() -> None:
    assert difference({"a": 1.0, "b": 5.0}, {"b": 6.0, "c": 0.0}).num_scenes == 1


def test_what_scenes_have_in_common_is_no_error_of_the_comparison() -> None:
    cells = {("small", 0): HARDNESS, ("large", 0): {scene: value - 1.0 for scene, value in HARDNESS.items()}}
    found = within_scenes(cells)
    assert found["small", 0].mean - found["large", 0].mean == pytest.approx(1.0)
    assert found["small", 0].error == pytest.approx(0.0, abs=1e-9)
    assert estimate(HARDNESS).error > 1.0


def test_of_independent_cells_the_error_within_scenes_is_the_plain_one() -> None:
    random = np.random.default_rng(2)
    cells = {(str(index), 0): {str(scene): float(random.normal()) for scene in range(400)} for index in range(4)}
    for cell, found in within_scenes(cells).items():
        assert found.error == pytest.approx(estimate(cells[cell]).error, rel=0.1)


def test_small_gains_are_sure_although_scenes_differ_much() -> None:
    document = trends_document([curve("large", 2000, gain=0.5), curve("small", 1000, gain=0.0)])
    assert [model["size"] for model in document["models"]] == ["small", "large"]
    for group in ("trained", "held_out"):
        series = document["loss"][group]
        assert all(step["is_sure"] and step["mean"] == pytest.approx(-0.5, abs=0.05) for step in series["larger_model"])
        assert all(step["is_sure"] and step["mean"] == pytest.approx(-0.2, abs=0.05) for step in series["more_pairs"])
    assert document["num_pairs"] == [0, 2]


def test_equal_models_are_told_apart_by_nothing() -> None:
    document = trends_document([curve("one", 1000, gain=0.0, noise=0.0), curve("two", 2000, gain=0.0, noise=0.0)])
    assert not any(step["is_sure"] for step in document["loss"]["trained"]["larger_model"])


def test_a_task_is_shown_with_its_own_metric_between_query_and_ceiling() -> None:
    depth, denoising = (trends_document([curve("one", 1000, gain=0.0)])["tasks"][task] for task in ("depth", "denoising"))
    assert (depth["metric"], depth["better"], depth["held_out"]) == ("abs_rel", "lower", False)
    assert (denoising["metric"], denoising["better"], denoising["held_out"]) == ("psnr", "higher", True)
    assert (depth["unchanged"], depth["ceiling"]) == (2.0, 0.5)
    assert depth["values"]["one"]["2"]["mean"] == pytest.approx(0.8 + np.mean(list(HARDNESS.values())), abs=0.05)


def test_a_query_whose_metric_is_undefined_is_left_out() -> None:
    scores = [Score(1, "edges", scene, "f1", value, 1.0, 0.0) for scene, value in (("a", 0.5), ("b", math.nan), ("c", 0.7))]
    one = Curve("one", 1, 1e-3, 0.1, (), scores)
    assert one.by_scene("f1", ["edges"], 1) == {"a": 0.5, "c": 0.7}


def test_tasks_over_the_same_scene_are_one_observation() -> None:
    one = curve("one", 1000, gain=0.0)
    assert set(one.by_scene(LOSS, ["depth", "denoising"], 0)) == set(SCENES)
