from collections import Counter
from typing import Any

import numpy as np
import pytest

from lavin_dit.data.mixing import EpisodeWeights, Group, Mixer
from lavin_dit.errors import InputError

COUNTS: dict[Group, int] = {("depth", "kitti"): 30, ("depth", "scenes"): 10, ("edges", "scenes"): 5}


def shares(counts: dict[Group, int] = COUNTS, **weights: Any) -> dict[Group, float]:
    mix = Mixer(COUNTS, EpisodeWeights(**weights)).mix(counts)
    random = np.random.default_rng(0)
    drawn = Counter(mix.draw(random) for _ in range(4000))
    return {group: count / 4000 for group, count in drawn.items()}


CASES: dict[str, tuple[dict[str, Any], dict[Group, float]]] = {
    "tasks alike, sources by their pairs": ({}, {("depth", "kitti"): 0.375, ("depth", "scenes"): 0.125, ("edges", "scenes"): 0.5}),
    "a task's weight": (
        {"tasks": {"edges": 3.0}},
        {("depth", "kitti"): 0.1875, ("depth", "scenes"): 0.0625, ("edges", "scenes"): 0.75},
    ),
    "a source's weight, in every task": (
        {"sources": {"scenes": 4.0}},
        {("depth", "kitti"): 0.1, ("depth", "scenes"): 0.4, ("edges", "scenes"): 0.5},
    ),
    "a source's weight in one task counts first": (
        {"sources": {"scenes": 4.0, "depth/scenes": 1.0}},
        {("depth", "kitti"): 0.25, ("depth", "scenes"): 0.25, ("edges", "scenes"): 0.5},
    ),
    "a source of weight 0": ({"sources": {"kitti": 0.0}}, {("depth", "scenes"): 0.5, ("edges", "scenes"): 0.5}),
    "a task whose sources all have weight 0": ({"sources": {"edges/scenes": 0.0}}, {("depth", "kitti"): 0.75, ("depth", "scenes"): 0.25}),
    "a task of weight 0": ({"tasks": {"depth": 0.0}}, {("edges", "scenes"): 1.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_groups_are_drawn_by_weight(name: str) -> None:
    weights, expected = CASES[name]
    assert shares(**weights) == pytest.approx(expected, abs=0.03)


def test_what_is_not_at_hand_is_not_drawn() -> None:
    assert shares({("depth", "scenes"): 10}) == {("depth", "scenes"): 1.0}


def test_nothing_is_left_where_all_has_weight_0() -> None:
    assert not Mixer(COUNTS, EpisodeWeights(tasks={"depth": 0.0, "edges": 0.0})).mix(COUNTS).tasks


def test_names_that_the_data_has_not_are_refused() -> None:
    with pytest.raises(InputError, match=r"^train_dit\.task_weights names pose, sleep: the data has depth, edges$"):
        Mixer(COUNTS, EpisodeWeights(tasks={"sleep": 1.0, "pose": 1.0, "depth": 1.0}))
    with pytest.raises(InputError, match=r"^train_dit\.source_weights names coco, edges/kitti: the data comes from kitti, scenes$"):
        Mixer(COUNTS, EpisodeWeights(sources={"coco": 1.0, "edges/kitti": 1.0, "kitti": 1.0}))
