"""How long a GPU takes for the J-DiT's plain blocks, reckoned from operations, bytes and kernels. Never imports torch.

The constants are what one H100 was seen to do (docs/LOG.md, 2026-11-28): steps that keep the GPU itself busy are reckoned within 6 %, those
that start kernels most of the time within 26 %. Low-rank updates and selective checkpointing are not modelled beyond their operations and
bytes: both start kernels from Python, and take up to four times as long where those are small.
"""

from lavin_dit.planning.devices import Device
from lavin_dit.planning.flops import TRAINING_FACTOR, dit_recomputed
from lavin_dit.planning.layers import dit_network
from lavin_dit.planning.low_rank import updates_bytes
from lavin_dit.planning.workload import episodes_flops, largest_episodes
from lavin_dit.training_config import TrainDitConfig

SHARE_OF_PRODUCTS = 0.8
"""Of the peak, what large matrix products reach."""
ACCESSES_OF_KEPT = 24.3
"""How often what the forward pass keeps goes through memory, there and in the backward pass, at the data sheet's bandwidth."""
KERNELS_OF_BLOCK = {"float32": 480, "bfloat16": 667}
"""Started in the forward and the backward pass; half precision has its casts."""
KERNEL_S = 10.7e-6
"""What starting one takes the processor: of the machine that was seen."""


def plain_passes_s(config: TrainDitConfig, device: Device, *, samples: int, resolution: int, frames: int = 1) -> float:
    """A micro-batch of episodes that show the most pairs, forward and backward: the GPU's work, or the starting of its kernels."""
    kept_whole = config.execution.model_copy(update={"activation_checkpointing": "none"})
    plain = config.model_copy(update={"execution": kept_whole})
    network = dit_network(plain, samples=samples, resolution=resolution, frames=frames, on_gpu=True)
    episodes = largest_episodes(config, samples=samples, resolution=resolution, frames=frames)
    recomputed = dit_recomputed(config.execution.activation_checkpointing)
    passes, precision = 1 + network.backward + recomputed, config.execution.precision
    flops = passes * episodes_flops(config, episodes)
    share = passes / TRAINING_FACTOR
    kept = sum(layer.kept for layer in network.layers) + network.around + network.losses
    moved = share * ACCESSES_OF_KEPT * kept + updates_bytes(config, episodes, recomputed=recomputed)
    working_s = flops / (SHARE_OF_PRODUCTS * device.peak_flops(precision)) + moved / device.memory_bandwidth
    return max(working_s, share * config.shape.depth * KERNELS_OF_BLOCK[precision] * KERNEL_S)
