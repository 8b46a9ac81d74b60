"""In-context episodes: a task, a few example pairs of it, a query and its answer, drawn from (seed, step, sample) alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards import Pair
from lavin_dit.errors import InputError

PAIRS_STREAM, SAMPLE_STREAM, DROP_STREAM = 0, 1, 2


@dataclass(frozen=True)
class Episode:
    """One training sample: positions in the task's list of pairs, and the draws of its time and noise."""

    task: str
    context: tuple[int, ...]
    query: int
    time_normal: float
    noise: NDArray[np.float32]


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws episodes over pairs grouped by task; all of a step's episodes show the same number of pairs."""

    pairs: Mapping[str, Sequence[Pair]]
    task_weights: Mapping[str, float]
    max_pairs: int
    prompt_drop_probability: float
    noise_shape: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        unknown = sorted(set(self.task_weights) - set(self.pairs))
        if unknown:
            raise InputError(f"train_dit.task_weights names {', '.join(unknown)}: the data has {', '.join(self.pairs)}")
        if not sum(self._weights()):
            raise InputError("train_dit.task_weights: every task of the data has weight 0; at least one needs more")
        for task, pairs in self.pairs.items():
            if len(pairs) <= self.max_pairs:
                raise InputError(
                    f"task {task} has {len(pairs)} training pairs: an episode needs a query and up to {self.max_pairs} "
                    "others (train_dit.max_pairs)"
                )

    def num_pairs(self, step: int) -> int:
        """Context pairs of a step's episodes, from 1 to `max_pairs`."""
        return int(np.random.default_rng([self.seed, PAIRS_STREAM, step]).integers(1, self.max_pairs + 1))

    def drops(self, step: int, batch_size: int) -> NDArray[np.bool_]:
        """Which episodes of a step's global batch lose their prompt. Shapes: returns `(batch_size,)`."""
        random = np.random.default_rng([self.seed, DROP_STREAM, step])
        return random.random(batch_size) < self.prompt_drop_probability

    def draw(self, step: int, sample: int) -> Episode:
        """One sample of a step's global batch."""
        random = np.random.default_rng([self.seed, SAMPLE_STREAM, step, sample])
        weights = np.array(self._weights())
        task = str(random.choice(list(self.pairs), p=weights / weights.sum()))
        query, *context = random.choice(len(self.pairs[task]), size=self.num_pairs(step) + 1, replace=False)
        return Episode(
            task=task,
            context=tuple(int(position) for position in context),
            query=int(query),
            time_normal=float(random.standard_normal()),
            noise=random.standard_normal(self.noise_shape, dtype=np.float32),
        )

    def _weights(self) -> list[float]:
        return [self.task_weights.get(task, 1.0) for task in self.pairs]
