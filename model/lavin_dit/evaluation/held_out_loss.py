"""The flow-matching loss on held-out queries: the same times and noise for every model, so that models can be compared query by query."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from lavin_dit.dit.j_dit import JDit
from lavin_dit.flow import path_sample
from lavin_dit.sampling import starting_noise

NUM_TIMES = 4
FIRST_NOISE = 2**32
"""Sampling draws its noise from the numbers below."""


def fixed_times() -> list[float]:
    """The middles of equal shares of the logit-normal distribution that training draws its times from, before any shift."""
    normals = [NormalDist().inv_cdf((index + 0.5) / NUM_TIMES) for index in range(NUM_TIMES)]
    return [1 / (1 + math.exp(-normal)) for normal in normals]


@torch.no_grad()
def held_out_losses(dit: JDit, prompt: Tensor, answer: Tensor, *, indices: Sequence[int], seed: int) -> Tensor:
    """Each query's mean squared error of the velocity, over fixed times; `indices` are the queries' numbers and select their noise.

    Shapes: prompt `(b, z, f, y, x)`, answer `(b, z, 1, y, x)`, to `(b,)`.
    """
    losses = []
    for number, time in enumerate(fixed_times()):
        numbers = [FIRST_NOISE + index * NUM_TIMES + number for index in indices]
        noise = torch.stack([torch.from_numpy(starting_noise(tuple(answer.shape[1:]), seed=seed, index=each)) for each in numbers])
        path = path_sample(answer, noise.to(answer.device), torch.full((len(numbers),), time, device=answer.device))
        losses.append((dit(path.z_t, prompt, path.time) - path.velocity).square().flatten(1).mean(dim=1))
    return torch.stack(losses).mean(dim=0)
