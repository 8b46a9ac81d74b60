"""In-context episodes: a task, a few example pairs of it, a query and its answer, drawn from (seed, step, sample) alone.

All pairs of an episode come from one source of its task, since sources differ in what they draw (the colours of labels, for one). All
episodes of a step show pictures, or all show clips, and equally many pairs.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.mixing import EpisodeWeights as EpisodeWeights
from lavin_dit.data.mixing import Group, Mix, Mixer
from lavin_dit.data.shards.shard_set import Pair
from lavin_dit.data.task import Medium
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

PAIRS_STREAM, SAMPLE_STREAM, DROP_STREAM, MEDIUM_STREAM = 0, 1, 2, 3


@dataclass(frozen=True)
class Episode:
    """One training sample: positions in its group's list of pairs, and the draws of its time and noise."""

    group: Group
    context: tuple[int, ...]
    query: int
    time_normal: float
    noise: NDArray[np.float32]


@dataclass(frozen=True)
class EpisodeShape:
    """What the episodes of one medium look like. Shapes: noise `(z, f, y, x)`, as an answer's latents."""

    max_pairs: int
    noise_shape: tuple[int, ...]


class EpisodeSampler:
    """Draws episodes over pairs grouped by task and source."""

    def __init__(
        self,
        groups: Mapping[Group, Sequence[Pair]],
        shapes: Mapping[Medium, EpisodeShape],
        weights: EpisodeWeights,
        *,
        prompt_drop_probability: float,
        seed: int,
    ) -> None:
        """Groups without pairs are left out, so are those of a medium without a shape, and with a warning those with too few pairs.

        Raises: InputError where the weights name what the data has not, or leave nothing to draw, or all groups of a task are too small.
        """
        self.groups = {group: pairs for group, pairs in groups.items() if len(pairs) and medium_of(pairs) in shapes}
        self.tasks = tuple(dict.fromkeys(task for task, _ in self.groups))
        """Those that can be drawn, in the order of the groups."""
        self._shapes, self._clip_share = shapes, weights.clip_share
        self._drop, self._seed = prompt_drop_probability, seed
        self._mediums = {group: medium_of(pairs) for group, pairs in self.groups.items()}
        _refuse_left_out(groups, self.tasks, weights)
        self._mixer = Mixer(self.groups, weights)
        self._check_counts()
        self._check_shares()
        self._mixes = {medium: self._mix_of(medium) for medium in shapes}

    @property
    def media(self) -> frozenset[Medium]:
        """Of all that can be drawn."""
        return frozenset(self._mediums.values())

    def medium(self, step: int) -> Medium:
        """What a step's episodes show."""
        share = self._clip_share
        return "clip" if share > 0 and np.random.default_rng([self._seed, MEDIUM_STREAM, step]).random() < share else "image"

    def num_pairs(self, step: int) -> int:
        """Context pairs of a step's episodes, from 1 to the most of its medium."""
        max_pairs = self._shapes[self.medium(step)].max_pairs
        return int(np.random.default_rng([self._seed, PAIRS_STREAM, step]).integers(1, max_pairs + 1))

    def drops(self, step: int, batch_size: int) -> NDArray[np.bool_]:
        """Which episodes of a step's global batch lose their prompt. Shapes: returns `(batch_size,)`."""
        random = np.random.default_rng([self._seed, DROP_STREAM, step])
        return random.random(batch_size) < self._drop

    def draw(self, step: int, sample: int) -> Episode:
        """One sample of a step's global batch."""
        random = np.random.default_rng([self._seed, SAMPLE_STREAM, step, sample])
        medium = self.medium(step)
        group = self._mixes[medium].draw(random)
        query, *context = random.choice(len(self.groups[group]), size=self.num_pairs(step) + 1, replace=False)
        return Episode(
            group=group,
            context=tuple(int(position) for position in context),
            query=int(query),
            time_normal=float(random.standard_normal()),
            noise=random.standard_normal(self._shapes[medium].noise_shape, dtype=np.float32),
        )

    def _mix_of(self, medium: Medium) -> Mix:
        """The chances of a medium's groups; one with too few pairs has none."""
        counts = {group: len(self.groups[group]) for group, other in self._mediums.items() if other == medium}
        return self._mixer.mix({group: count for group, count in counts.items() if count > self._shapes[medium].max_pairs})

    def _check_counts(self) -> None:
        counts = {group: len(pairs) for group, pairs in self.groups.items()}
        large = {group: count for group, count in counts.items() if count > self._shapes[self._mediums[group]].max_pairs}
        wanted, left = self._mixer.mix(counts), self._mixer.mix(large)
        for task, groups in zip(wanted.tasks, wanted.groups, strict=True):
            if task not in left.tasks:
                raise InputError(self._too_few(task, groups))
            small = [group for group in groups if group not in large]
            if small:
                logger.warning("%s; they are left out", self._too_few(task, small))

    def _too_few(self, task: str, groups: Sequence[Group]) -> str:
        medium = self._mediums[groups[0]]
        counts = {source: len(self.groups[task, source]) for _, source in groups}
        numbers = " and ".join(f"{count} training pair{'' if count == 1 else 's'} from {source}" for source, count in counts.items())
        key = "clips.max_pairs" if medium == "clip" else "max_pairs"
        return f"task {task} has {numbers}: an episode needs a query and up to {self._shapes[medium].max_pairs} others (train_dit.{key})"

    def _check_shares(self) -> None:
        shares: Mapping[Medium, float] = {"image": 1 - self._clip_share, "clip": self._clip_share}
        for medium, share in shares.items():
            counts = {group: len(pairs) for group, pairs in self.groups.items() if self._mediums[group] == medium}
            if share > 0 and not counts:
                raise InputError(f"train_dit.clips: {share:.0%} of the steps show {medium}s, but no task of the data has any")
            if share > 0 and not self._mixer.mix(counts).tasks:
                raise InputError(f"train_dit.task_weights: every task on {medium}s has weight 0, or its sources have; one needs more")


def medium_of(pairs: Sequence[Pair]) -> Medium:
    """Whether pairs are of pictures or of clips; all of a group's are alike."""
    return "clip" if len(pairs[0].input) > 1 else "image"


def _refuse_left_out(groups: Mapping[Group, Sequence[Pair]], tasks: Sequence[str], weights: EpisodeWeights) -> None:
    """What the data has, but no step shows."""
    left_out = {task for (task, _), pairs in groups.items() if len(pairs)}.difference(tasks)
    named = sorted(left_out.intersection(weights.tasks))
    if named:
        raise InputError(
            f"train_dit.task_weights names {', '.join(named)}, a task on clips: train_dit.clips is null, so that none are shown"
        )
