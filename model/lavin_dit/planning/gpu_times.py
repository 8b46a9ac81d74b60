"""How long a GPU takes for the J-DiT's plain blocks, reckoned from operations, bytes and kernels. Never imports torch.

The constants are what one H100 was seen to do (docs/LOG.md, 2026-11-28): steps that keep the GPU itself busy are reckoned within 7 %, those
that start kernels most of the time within 25 %. What low-rank updates take to start is known from one step alone.
"""

from lavin_dit.planning.devices import Device
from lavin_dit.planning.flops import TRAINING_FACTOR, dit_recomputed
from lavin_dit.planning.layers import dit_network
from lavin_dit.planning.low_rank import updates_bytes
from lavin_dit.planning.weights import adapted, dit_weights, moved
from lavin_dit.planning.workload import episodes_flops, largest_episodes
from lavin_dit.training_config import TrainDitConfig

SHARE_OF_PRODUCTS = 0.8
"""Of the peak, what large matrix products reach."""
ACCESSES_OF_KEPT = 24.3
"""How often what the forward pass keeps goes through memory, there and in the backward pass, at the data sheet's bandwidth."""
KERNELS_OF_BLOCK = {"float32": 480, "bfloat16": 667}
"""Started in the forward and the backward pass; half precision has its casts."""
KERNELS_OF_UPDATE = 75
"""What a low-rank update takes to start, in kernels: some dozen are its own, the rest is Python's."""
SELECTIVE_STARTS = 3.0
"""How much longer starting a block's kernels takes where every operation is looked at in Python, and most are started again."""
KERNEL_S = 10.7e-6
"""What starting one takes the processor: of the machine that was seen."""


def plain_passes_s(config: TrainDitConfig, device: Device, *, samples: int, resolution: int, frames: int = 1, count: int = 1) -> float:
    """A micro-batch of episodes that show the most pairs, forward and backward: the GPU's work, or the starting of its kernels.

    Units: `samples` of each of the `count` micro-batches of a step; seconds of their mean.
    """
    kept_whole = config.execution.model_copy(update={"activation_checkpointing": "none"})
    plain = config.model_copy(update={"execution": kept_whole})
    network = dit_network(plain, samples=samples, resolution=resolution, frames=frames, on_gpu=True)
    episodes = largest_episodes(config, samples=samples, resolution=resolution, frames=frames)
    recomputed = dit_recomputed(config.execution.activation_checkpointing)
    passes = 1 + network.backward + recomputed
    flops = passes * episodes_flops(config, episodes)
    kept = sum(layer.kept for layer in network.layers) + network.around + network.losses
    moved_bytes = passes / TRAINING_FACTOR * ACCESSES_OF_KEPT * kept + updates_bytes(config, episodes, recomputed=recomputed)
    working_s = flops / (SHARE_OF_PRODUCTS * device.peak_flops(config.execution.precision)) + moved_bytes / device.memory_bandwidth
    return max(working_s, _kernels(config, count) * KERNEL_S)


def _kernels(config: TrainDitConfig, count: int) -> float:
    """Started for a micro-batch, or what takes as long to start; what is frozen spares few of them."""
    checkpointing, weights = config.execution.activation_checkpointing, dit_weights(config.shape)
    again = SELECTIVE_STARTS if checkpointing == "selective" else 1 + dit_recomputed(checkpointing) / TRAINING_FACTOR
    updates = adapted(weights, config.frozen) if config.lora else []
    gradients = 2 * len(updates) if config.lora else len(moved(weights, config.frozen))
    # All micro-batches but the first add their gradients to those that are there, a kernel each.
    added = gradients * (count - 1) / count
    return again * config.shape.depth * KERNELS_OF_BLOCK[config.execution.precision] + KERNELS_OF_UPDATE * len(updates) + added
