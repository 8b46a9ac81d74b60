"""How long one layer takes on this machine, timed alone, as training lays it out: precision, frozen weights, activation checkpointing."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lavin_dit.training.objective import Cost, Losses, Objective
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut, trained_weights
from lavin_dit.training_config import ExecutionConfig

MOST_FLOPS = 5e9
"""Of a layer's forward pass that is timed: of more, a part is."""
FEWEST_SAMPLES = 2
PREPARING, REPEATS = 2, 3
SEED, WEIGHT_STD = 0, 0.02
CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)

Inputs = Sequence[Tensor]
Call = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Portion:
    """A micro-batch, or a part of one."""

    samples: int
    resolution: int


def passes_s(whole: Portion, timed_s: Callable[[Portion], float], flops: Callable[[Portion], float], *, largest: float, step: int) -> float:
    """How long a micro-batch takes, timed itself, or by two parts of it: what they have in common is once in it as well, the rest grows.

    `largest` is the share of a pass's operations that its largest layer has, and `step` what resolutions are multiples of.
    """
    part = _part(whole, lambda each: largest * flops(each), step)
    if part == whole:
        return timed_s(whole)
    fewer = Portion(part.samples // 2, part.resolution)
    part_s, fewer_s = timed_s(part), timed_s(fewer)
    growth = max(part_s - fewer_s, 0.0) / (flops(part) - flops(fewer))
    return part_s + (flops(whole) - flops(part)) * growth


def _part(whole: Portion, layer_flops: Callable[[Portion], float], step: int) -> Portion:
    """As much of a micro-batch as is timed: fewer samples, and where they are still too much, of lower resolution."""
    if layer_flops(whole) <= MOST_FLOPS:
        return whole
    resolution = whole.resolution
    while FEWEST_SAMPLES * layer_flops(Portion(1, resolution)) > MOST_FLOPS and resolution % (2 * step) == 0:
        resolution //= 2
    return Portion(max(int(MOST_FLOPS / layer_flops(Portion(1, resolution))), FEWEST_SAMPLES), resolution)


@dataclass(frozen=True)
class Stopwatch:
    """How layers are timed."""

    processes: Processes = ALONE
    """All of them time the same layers at the same time, and what they send each other is part of it."""
    is_last: bool = True
    """Whether it is the last micro-batch of a step, whose gradients meet."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds: processor time on a machine that others use as well."""

    def layer_s(self, layer: nn.Module, call: Call, inputs: Inputs, execution: ExecutionConfig) -> float:
        """A layer's forward pass, and its backward pass if one comes to it, in the fastest of several."""
        return self.objective_s(_Alone(_Called(layer, call)), inputs, execution)

    def objective_s(self, objective: Objective[Any], batch: object, execution: ExecutionConfig) -> float:
        """The same of what a network learns by."""
        laid_out = LaidOut(objective, execution.model_copy(update={"compile": False}), self._sharing(objective, execution))

        def run() -> float:
            started = self.clock()
            with laid_out.accumulating(is_last=self.is_last):
                total = laid_out.losses(batch).total
                if total.requires_grad:
                    total.backward()  # type: ignore[no-untyped-call]
            if self.is_last:
                laid_out.meet()
            ended = self.clock()
            objective.zero_grad(set_to_none=True)
            return ended - started

        # The first ones only prepare: copies (DDP) lay out what they send by the second.
        for _ in range(PREPARING):
            run()
        return min(run() for _ in range(REPEATS))

    def _sharing(self, objective: Objective[Any], execution: ExecutionConfig) -> Processes:
        is_shared = execution.sharding != "none" or trained_weights(objective)
        return self.processes if is_shared else ALONE


def noise(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Something for a layer to take."""
    return torch.randn(size, generator=torch.Generator().manual_seed(SEED), dtype=dtype)


@torch.no_grad()
def materialise(layer: nn.Module, generator: torch.Generator) -> None:
    """Gives a layer that was made without its numbers some."""
    layer.to_empty(device=CPU)
    for weight in layer.parameters():
        weight.normal_(std=WEIGHT_STD, generator=generator)


class _Called(nn.Module):
    """A layer, what is asked of it, and gradients of what it gives, which come from nowhere."""

    def __init__(self, layer: nn.Module, call: Call) -> None:
        super().__init__()
        self.layer, self._call = layer, call
        self._gradients: tuple[Tensor, ...] = ()

    def forward(self, *inputs: Tensor) -> Tensor:
        given = self._call(*inputs)
        # Made in the first pass, in the layout of what they belong to: convolutions take another way where the two differ.
        self._gradients = self._gradients or tuple(map(_noise_like, given))
        total: Tensor = _Source.apply(self._gradients, *given)  # type: ignore[no-untyped-call]
        return total


class _Alone(Objective[Inputs]):
    """A layer as an objective of its own."""

    def __init__(self, layer: _Called) -> None:
        super().__init__()
        self.network = layer

    def batch(self, step: int, samples: range) -> Inputs:
        raise NotImplementedError

    def forward(self, batch: Inputs) -> Losses:
        return Losses(self.network(*batch))

    def cost(self, batch: Inputs) -> Cost:
        raise NotImplementedError


def _noise_like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, requires_grad=False).normal_(generator=torch.Generator().manual_seed(SEED))


class _Source(torch.autograd.Function):
    """Gives tensors their gradients, at no cost."""

    @staticmethod
    def forward(ctx: Any, gradients: tuple[Tensor, ...], *given: Tensor) -> Tensor:
        ctx.gradients = gradients
        return given[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.gradients)
