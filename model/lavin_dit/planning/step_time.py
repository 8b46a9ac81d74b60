"""How long a step takes on a fleet of GPUs: operations, messages, and how one hides the other. Never imports torch."""

from dataclasses import dataclass

from lavin_dit.planning.devices import Device
from lavin_dit.planning.dit_activations import FLOAT32
from lavin_dit.planning.layout import Layout
from lavin_dit.planning.traffic import Traffic

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
    mfu: float | None
    """None where it is not stated: this machine's layers are timed, and GPUs are reckoned with what one was seen to do."""


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


def step_time(
    device: Device,
    traffic: Traffic,
    *,
    speed: float,
    forward_flops: float,
    backward: float,
    count: int,
    num_layers: int,
    updated: float,
) -> StepTime:
    """One GPU's step: each pass takes as long as its operations or its messages, whichever is longer, and the first and last wait.

    Units: `speed` in operations a second; `backward` in forwards, with what activation checkpointing makes again.
    """
    forward_s = forward_flops / speed / count
    backward_s = forward_s * backward
    gather_s = traffic.gathers.seconds(device) / (2 * count)
    reduce_s = traffic.reductions.seconds(device)
    exposed_s = count * max(gather_s - forward_s, 0) + (count - 1) * max(gather_s - backward_s, 0)
    exposed_s += max(gather_s + reduce_s - backward_s, 0) + (gather_s + reduce_s) / num_layers
    return StepTime(
        compute_s=count * (forward_s + backward_s),
        network_s=2 * count * gather_s + reduce_s,
        exposed_s=exposed_s,
        update_s=ACCESSES_OF_AN_UPDATE * FLOAT32 * updated / device.memory_bandwidth,
    )
