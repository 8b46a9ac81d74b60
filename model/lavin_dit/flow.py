"""Flow matching: the path from noise to data, how times are drawn, and the Euler solver. Source: LaVin-DiT, section 3.4."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lavin_dit.sampling import time_grid


@dataclass(frozen=True)
class PathSample:
    """A point on the straight path. Shapes: z_t and velocity like the data, time `(b,)`."""

    z_t: Tensor
    velocity: Tensor
    time: Tensor


def path_sample(data: Tensor, noise: Tensor, time: Tensor) -> PathSample:
    """`z_t = t z_1 + (1 - t) noise`, whose velocity is `z_1 - noise`."""
    t = time.view(-1, *[1] * (data.ndim - 1))
    return PathSample(z_t=t * data + (1.0 - t) * noise, velocity=data - noise, time=time)


def logit_normal_time(normal: Tensor, *, shift: float) -> Tensor:
    """Times from standard normal draws: logit-normal(0, 1), then `t / (t + shift (1 - t))`. Shapes: `(b,)` to `(b,)`."""
    time = torch.sigmoid(normal)
    return time / (time + shift * (1.0 - time))


@dataclass(frozen=True)
class FlowLoss:
    """The training loss and its parts, scalars; `per_sample` is the squared error of each sample `(b,)`, detached."""

    total: Tensor
    squared: Tensor
    absolute: Tensor
    per_sample: Tensor


def flow_loss(predicted: Tensor, velocity: Tensor, *, absolute_weight: float) -> FlowLoss:
    """Mean squared error plus a weighted mean absolute error, over the answer's velocity."""
    squared_errors = F.mse_loss(predicted, velocity, reduction="none")
    squared, absolute = squared_errors.mean(), F.l1_loss(predicted, velocity)
    return FlowLoss(squared + absolute_weight * absolute, squared, absolute, squared_errors.detach().flatten(1).mean(dim=1))


Velocity = Callable[[Tensor, int], Tensor]


def euler(velocity: Velocity, noise: Tensor, *, num_points: int) -> Tensor:
    """Integrates from noise to data over `time_grid(num_points)`; `velocity(z, i)` is asked at the grid's i-th time."""
    grid = time_grid(num_points)
    z = noise
    for index in range(num_points - 1):
        z = z + float(grid[index + 1] - grid[index]) * velocity(z, index)
    return z
