"""How long a step takes on a fleet of GPUs: operations, messages, and how one hides the other. Never imports torch."""

from dataclasses import dataclass

from lavin_dit.planning.devices import Device
from lavin_dit.planning.dit_activations import FLOAT32
from lavin_dit.planning.flops import TRAINING_FACTOR
from lavin_dit.planning.layout import Layout
from lavin_dit.planning.traffic import Traffic
from lavin_dit.training_config import ExecutionConfig

DEFAULT_MFU = 0.35
"""What uncompiled and compiled transformers of a few billion weights reach in bfloat16 on H100 with FSDP2: 0.33 to 0.39 (torchtitan's
published figures for Llama 3.1 8B). Smaller widths reach less; a run's own telemetry says what yours does."""
ACCESSES_OF_AN_UPDATE = 12
"""Reads and writes of a weight's numbers by clipping, AdamW and the moving average: three of the gradient for the clipping, four read and
three written by AdamW, two by the average."""


@dataclass(frozen=True)
class Fleet:
    """The GPUs that a recipe is to run on, and the share of their peak that is expected of the operations they make."""

    device: Device
    layout: Layout
    mfu: float


@dataclass(frozen=True)
class StepTime:
    """A step's seconds."""

    compute_s: float
    """Of the operations, those made again by activation checkpointing included."""
    network_s: float
    """Of the links, whether waited for or not."""
    exposed_s: float
    """What of that nothing hides."""
    update_s: float

    @property
    def step_s(self) -> float:
        return self.compute_s + self.exposed_s + self.update_s


@dataclass(frozen=True)
class Speeds:
    """What one device reaches without a stated MFU: three speeds, whose parts of a step add up. Units: operations or bytes a second."""

    products: float
    """Matrix products and convolutions, at their own peak."""
    activations: float
    """Bytes that the forward pass would keep, over all that is done with them: norms, gates, additions, copies and their gradients."""
    updates: float
    """Bytes that an update reads and writes."""

    @classmethod
    def calibrated(cls, work: "Work", step_s: float, *, products: float, updates: float) -> "Speeds":
        """From one step that was measured: what products and update leave of it was spent on activations."""
        return cls(products, work.activation_bytes / (step_s - work.flops / products - work.update_bytes / updates), updates)

    def step_s(self, work: "Work") -> float:
        """How long another step takes."""
        return work.flops / self.products + work.activation_bytes / self.activations + work.update_bytes / self.updates


@dataclass(frozen=True)
class Work:
    """What a step on one device does: narrow networks spend most of it on their activations, wide ones on products."""

    flops: float
    """Recomputed ones included."""
    activation_bytes: float
    """As kept without checkpointing; recomputing passes over a third of their traffic again."""
    update_bytes: float

    @classmethod
    def of(cls, *, forward_flops: float, kept_bytes: float, trained: int, backward: float, judging_flops: float = 0.0) -> "Work":
        """Of a forward pass's operations, what it keeps without checkpointing, how many weights are trained, and operations beside.

        Units: `backward` in forwards, with what activation checkpointing makes again.
        """
        passes = 1 + backward
        return cls(passes * forward_flops + judging_flops, passes / TRAINING_FACTOR * kept_bytes, ACCESSES_OF_AN_UPDATE * FLOAT32 * trained)


def step_time(
    execution: ExecutionConfig,
    fleet: Fleet,
    traffic: Traffic,
    *,
    forward_flops: float,
    backward: float,
    count: int,
    num_layers: int,
    updated: float,
) -> StepTime:
    """One GPU's step: each pass takes as long as its operations or its messages, whichever is longer, and the first and last wait.

    Units: `backward` in forwards, with what activation checkpointing makes again.
    """
    speed = fleet.mfu * fleet.device.peak_flops(execution.precision)
    forward_s = forward_flops / speed / count
    backward_s = forward_s * backward
    gather_s = traffic.gathers.seconds(fleet.device) / (2 * count)
    reduce_s = traffic.reductions.seconds(fleet.device)
    exposed_s = count * max(gather_s - forward_s, 0) + (count - 1) * max(gather_s - backward_s, 0)
    exposed_s += max(gather_s + reduce_s - backward_s, 0) + (gather_s + reduce_s) / num_layers
    return StepTime(
        compute_s=count * (forward_s + backward_s),
        network_s=2 * count * gather_s + reduce_s,
        exposed_s=exposed_s,
        update_s=ACCESSES_OF_AN_UPDATE * FLOAT32 * updated / fleet.device.memory_bandwidth,
    )
