"""What a study shows: how loss and metrics move with the model's size and with the number of context pairs, and how surely.

Every model is asked the same queries with the same noise, so that two models, or two numbers of pairs, are compared query by query. Queries
of several tasks share their scenes; what is averaged and compared is therefore a scene.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student_t

from lavin_dit.data.tasks import task_of
from lavin_dit.evaluation.metrics import primary_metric
from lavin_dit.evaluation.results import LOSS

TRAINED, HELD_OUT = "trained", "held_out"

ByScene = Mapping[str, float]
Cell = tuple[str, int]
"""A size and a number of pairs."""


@dataclass(frozen=True)
class Score:
    """One metric of one query's answer, and what the ST-VAE alone and the query itself come to: NaN for the loss, and where undefined."""

    num_pairs: int
    task: str
    scene: str
    metric: str
    value: float
    ceiling: float
    unchanged: float


@dataclass(frozen=True)
class Curve:
    """One model of a study, and what it scored with each number of pairs."""

    size: str
    num_parameters: int
    learning_rate: float
    train_loss: float
    held_out: tuple[str, ...]
    """Tasks that training never drew."""
    scores: Sequence[Score] = field(repr=False)

    @property
    def num_pairs(self) -> tuple[int, ...]:
        return tuple(sorted({score.num_pairs for score in self.scores}))

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the order of the evaluation."""
        return tuple(dict.fromkeys(score.task for score in self.scores))

    def group(self, name: str) -> tuple[str, ...]:
        """The tasks that were trained on, or those that were held out."""
        return tuple(task for task in self.tasks if (task in self.held_out) == (name == HELD_OUT))

    def by_scene(self, metric: str, tasks: Iterable[str], num_pairs: int, *, of: str = "value") -> ByScene:
        """The mean of each scene's queries that define the metric."""
        wanted, values = set(tasks), dict[str, list[float]]()
        for score in self.scores:
            if score.metric == metric and score.num_pairs == num_pairs and score.task in wanted and not math.isnan(getattr(score, of)):
                values.setdefault(score.scene, []).append(getattr(score, of))
        return {scene: mean(each) for scene, each in values.items()}


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes and its standard error; NaN where there is nothing, or one scene alone."""

    mean: float
    error: float
    num_scenes: int

    @property
    def reach(self) -> float:
        """Half of the 95 % confidence interval, by Student's t."""
        return float(student_t.ppf(0.975, self.num_scenes - 1)) * self.error if self.num_scenes > 1 else math.nan

    @property
    def is_sure(self) -> bool:
        """Whether 0 lies outside the 95 % confidence interval."""
        return abs(self.mean) > self.reach


def estimate(values: ByScene) -> Estimate:
    """Mean and standard error over scenes."""
    if not values:
        return Estimate(math.nan, math.nan, 0)
    error = stdev(values.values()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(mean(values.values()), error, len(values))


def difference(before: ByScene, after: ByScene) -> Estimate:
    """How much `after` is above `before`, scene by scene."""
    return estimate({scene: after[scene] - before[scene] for scene in before if scene in after})


def within_scenes(cells: Mapping[Cell, ByScene]) -> dict[Cell, Estimate]:
    """Each cell's mean, with the error that is left when what a scene has in common over all cells is taken out of it.

    Hard scenes are hard for every model, so that the plain error says little about the difference of two models.
    Source: Cousineau 2005, with the correction of Morey 2008.
    """
    shared = set.intersection(*(set(scenes) for scenes in cells.values()))
    levels = {scene: mean(scenes[scene] for scenes in cells.values()) for scene in shared}
    bias = math.sqrt(len(cells) / (len(cells) - 1)) if len(cells) > 1 else math.nan
    found = {}
    for cell, scenes in cells.items():
        left = estimate({scene: scenes[scene] - levels[scene] for scene in shared})
        found[cell] = Estimate(estimate(scenes).mean, bias * left.error, len(shared))
    return found


def in_order(curves: Iterable[Curve]) -> list[Curve]:
    """From the smallest model to the largest."""
    return sorted(curves, key=lambda curve: (curve.num_parameters, curve.size))


def trends_document(curves: Sequence[Curve]) -> dict[str, Any]:
    """The content of trends.json: every figure of a study, from its smallest model to its largest."""
    ordered = in_order(curves)
    tasks = {
        task: {
            "metric": primary_metric(task_of(task)).name,
            "better": primary_metric(task_of(task)).better,
            "held_out": task in ordered[0].held_out,
            **_marks(ordered[0], task),
            **_series(ordered, primary_metric(task_of(task)).name, [task]),
        }
        for task in ordered[0].tasks
    }
    models = [
        {
            "size": curve.size,
            "num_parameters": curve.num_parameters,
            "learning_rate": curve.learning_rate,
            "train_loss": curve.train_loss,
        }
        for curve in ordered
    ]
    groups = [group for group in (TRAINED, HELD_OUT) if ordered[0].group(group)]
    losses = {group: _series(ordered, LOSS, ordered[0].group(group)) for group in groups}
    task_losses = {task: _series(ordered, LOSS, [task]) for task in ordered[0].tasks}
    return {"models": models, "num_pairs": list(ordered[0].num_pairs), "loss": losses, "loss_of_task": task_losses, "tasks": tasks}


def _series(curves: Sequence[Curve], metric: str, tasks: Sequence[str]) -> dict[str, Any]:
    """Values by size and number of pairs, and the paired steps between neighbours of either kind."""
    sizes, counts = [curve.size for curve in curves], list(curves[0].num_pairs)
    cells = {(curve.size, count): curve.by_scene(metric, tasks, count) for curve in curves for count in counts}
    values = within_scenes(cells)
    return {
        "values": {size: {str(count): _shown(values[size, count]) for count in counts} for size in sizes},
        "larger_model": [
            {"from": small, "to": large, "num_pairs": count, **_shown(difference(cells[small, count], cells[large, count]))}
            for small, large in _neighbours(sizes)
            for count in counts
        ],
        "more_pairs": [
            {"from": few, "to": many, "size": size, **_shown(difference(cells[size, few], cells[size, many]))}
            for few, many in _neighbours(counts)
            for size in sizes
        ],
    }


def _marks(curve: Curve, task: str) -> dict[str, float]:
    """Between what the task's own metric lies: the query itself as the answer, and the truth through the ST-VAE."""
    metric, count = primary_metric(task_of(task)).name, curve.num_pairs[0]
    return {name: estimate(curve.by_scene(metric, [task], count, of=name)).mean for name in ("unchanged", "ceiling")}


def _neighbours(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """One after the other, and the first with the last where there are more than two."""
    pairs = list(pairwise(values))
    return [*pairs, (values[0], values[-1])] if len(values) > 2 else pairs


def _shown(value: Estimate) -> dict[str, Any]:
    return {"mean": value.mean, "error": value.error, "reach": value.reach, "num_scenes": value.num_scenes, "is_sure": value.is_sure}
