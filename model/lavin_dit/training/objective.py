"""What a training run minimises: the contract between an objective and the one fit loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class Tally:
    """A per-sample loss, summed by bucket. Shapes: sums and counts `(k,)`, for k names."""

    names: tuple[str, ...]
    sums: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Losses:
    """Means over the samples of a micro-batch.

    `total` is minimised; `parts` are logged scalars, detached, and `tallies` sort per-sample losses by kind ("task", "time"). Names are
    the same in every process and micro-batch of a step.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a micro-batch costs, forward and backward."""

    tokens: int
    flops: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.flops + other.flops)


@dataclass(frozen=True)
class Adversary:
    """A network that is trained beside the one that is kept, and against it."""

    module: nn.Module
    learning_rate: float
    """At its peak; it follows the network's schedule."""


class Objective(nn.Module, ABC, Generic[BatchT]):
    """A network and its loss on batches that depend on nothing but (seed, step, sample)."""

    network: nn.Module
    """What is averaged, and kept when training has ended."""

    @abstractmethod
    def batch(self, step: int, samples: range) -> BatchT:
        """Some samples of a global batch; the same whatever the number of processes."""

    @abstractmethod
    def forward(self, batch: BatchT) -> Losses:
        """The losses of a micro-batch."""

    @abstractmethod
    def cost(self, batch: BatchT) -> Cost:
        """What `forward` on a batch, and its backward pass, take."""

    def adversary(self) -> Adversary | None:
        """What is trained beside the network and against it; its gradients are clipped apart."""
        return None

    def observe(self, means: Mapping[str, float]) -> None:
        """Takes note of a step's global means of `parts`, which are equal in all processes."""

    def state(self) -> dict[str, float]:
        """What `observe` keeps, for checkpoints."""
        return {}

    def take_up(self, state: Mapping[str, float]) -> None:
        """Goes on from what `state` gave."""
