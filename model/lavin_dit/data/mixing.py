"""How often episodes are drawn from which task, and within a task from which source: weights, checked against what the data has."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lavin_dit.errors import InputError

Group = tuple[str, str]
"""A task, and a source of pairs of it."""


@dataclass(frozen=True)
class EpisodeWeights:
    """Which episodes are drawn how often."""

    tasks: Mapping[str, float] = field(default_factory=dict)
    """Relative chance of each task; 1 where it is not named."""
    sources: Mapping[str, float] = field(default_factory=dict)
    """Relative chance of each source within a task, by `task/source`, or else by source; 1 where it is not named, but another source of the
    task is. Where none of a task's is named, sources are drawn by their number of pairs."""
    clip_share: float = 0.0
    """Share of the steps that show clips."""


@dataclass(frozen=True)
class Mix:
    """What can be drawn, and how likely each is: a task, then one of its groups."""

    tasks: tuple[str, ...]
    chances: NDArray[np.float64]
    groups: tuple[tuple[Group, ...], ...]
    group_chances: tuple[NDArray[np.float64], ...]

    def draw(self, random: np.random.Generator) -> Group:
        """One group; where a task has but one, no random number is spent on it."""
        task = random.choice(len(self.tasks), p=self.chances)
        groups = self.groups[task]
        return groups[random.choice(len(groups), p=self.group_chances[task]) if len(groups) > 1 else 0]


class Mixer:
    """The weights of some groups."""

    def __init__(self, groups: Collection[Group], weights: EpisodeWeights) -> None:
        """Raises: InputError where the weights name what is not among the groups."""
        tasks, sources = list(dict.fromkeys(task for task, _ in groups)), sorted({source for _, source in groups})
        _refuse_unknown("task_weights", set(weights.tasks).difference(tasks), f"the data has {', '.join(tasks)}")
        known = {*sources, *map("/".join, groups)}
        _refuse_unknown("source_weights", set(weights.sources) - known, f"the data comes from {', '.join(sources)}")
        self._task_weights = {task: weights.tasks.get(task, 1.0) for task in tasks}
        named = {group: _named(weights.sources, group) for group in groups}
        weighted = {task for (task, _), weight in named.items() if weight is not None}
        # None where the number of pairs counts.
        self._source_weights = {group: 1.0 if weight is None and group[0] in weighted else weight for group, weight in named.items()}

    def mix(self, counts: Mapping[Group, int]) -> Mix:
        """Over the groups that have pairs, in their order; what has weight 0 is absent."""
        sources = {group: weight for group, count in counts.items() if (weight := self._source_weight(group, count)) > 0}
        tasks = tuple(task for task in dict.fromkeys(task for task, _ in sources) if self._task_weights[task] > 0)
        groups = tuple(tuple(group for group in sources if group[0] == task) for task in tasks)
        return Mix(
            tasks=tasks,
            chances=_normalised([self._task_weights[task] for task in tasks]),
            groups=groups,
            group_chances=tuple(_normalised([sources[group] for group in of_task]) for of_task in groups),
        )

    def _source_weight(self, group: Group, count: int) -> float:
        weight = self._source_weights[group]
        return float(count) if weight is None else weight


def _refuse_unknown(key: str, names: Collection[str], known: str) -> None:
    if names:
        raise InputError(f"train_dit.{key} names {', '.join(sorted(names))}: {known}")


def _named(weights: Mapping[str, float], group: Group) -> float | None:
    task, source = group
    return weights.get(f"{task}/{source}", weights.get(source))


def _normalised(weights: Sequence[float]) -> NDArray[np.float64]:
    values = np.array(weights)
    return values / values.sum() if weights else values
