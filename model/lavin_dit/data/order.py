"""The order in which samples are drawn: a pure function of (seed, epoch), so that any step can be started from."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def sample_at(position: int, count: int, *, seed: int) -> int:
    """Which of `count` samples stands at a position of the endless shuffled stream; every epoch visits each once."""
    epoch, index = divmod(position, count)
    return int(_permutation(seed, epoch, count)[index])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)
