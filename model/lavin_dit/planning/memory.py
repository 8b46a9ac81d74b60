"""How much memory a process needs on its device: what each part takes, and the most that is there at once. Never imports torch.

Tests and benchmarks/plan.py hold it against what torch's allocator gives out, on CPUs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lavin_dit.planning.dit_activations import BFLOAT16, FLOAT32
from lavin_dit.planning.layers import Layer, Network, dit_network, vae_network
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.training_config import ExecutionConfig, TrainDitConfig, TrainVaeConfig

RESERVED_GIB = 2.0
"""Of a GPU's memory, what is not for tensors: the CUDA context and NCCL's buffers (about 1 GiB), and fragments of torch's cache."""
GIB = 2**30
BATCHES_HELD = 2
"""The one that is learnt from, and the next, which is loaded meanwhile."""
BROADCAST_BYTES = 250 * 2**20
"""Weights that DDP copies at once, when it begins by making all processes' equal."""
GATHERED_LAYERS = 2
"""Whole layers that a sharded network holds at once: the one that computes and the one that is gathered for what follows."""


@dataclass(frozen=True)
class Memory:
    """A process's memory by part. Units: bytes on the device, but for `host`."""

    weights: int
    gradients: int
    moments: int
    """AdamW's two."""
    average: int
    """The moving average of the weights."""
    copies: int
    """Weights once more: in half precision where the network computes in it, whole layers where the state is split."""
    judges: int
    """The discriminator with its optimizer, and the network of perceptual features."""
    activations: int
    """What the forward pass keeps for the backward pass, micro-batches included."""
    peak: int
    """The most that is there at once: parts come and go, gradients as activations are given back."""
    host: int
    """On the host, where the split state is kept there."""

    def fits(self, memory_gib: float) -> bool:
        """Whether a device of this size holds it."""
        return self.peak <= (memory_gib - RESERVED_GIB) * GIB


def dit_memory(
    config: TrainDitConfig, layout: Layout, *, samples: int, count: int, resolution: int, on_gpu: bool, clip_frames: int = 1
) -> Memory:
    """The J-DiT on `count` micro-batches a step, of `samples` episodes that show all their pairs: pictures or clips, what takes more."""
    frames = [1, clip_frames] if config.clips and clip_frames > 1 else [1]
    networks = [dit_network(config, samples=samples, resolution=resolution, frames=each, on_gpu=on_gpu) for each in frames]
    memories = [_memory(network, config.execution, layout, count=count, on_gpu=on_gpu) for network in networks]
    return max(memories, key=lambda memory: memory.peak)


def vae_memory(config: TrainVaeConfig, layout: Layout, *, samples: int, count: int, resolution: int, on_gpu: bool) -> Memory:
    """The ST-VAE on `count` micro-batches a step, of `samples` images, or clips where it learns from some."""
    frames = config.clips.frames if config.clips else 1
    network = vae_network(config, samples=samples, resolution=resolution, frames=frames, on_gpu=on_gpu)
    return _memory(network, config.execution, layout, count=count, on_gpu=on_gpu)


def largest_micro_batch(memory_of: Callable[[MicroBatches], Memory], share: int, memory_gib: float) -> int | None:
    """The most samples, of a share, that fit at once; None where not even one does."""
    for samples in sorted({-(-share // count) for count in range(1, share + 1)}, reverse=True):
        if memory_of(MicroBatches.of_share(share, samples)).fits(memory_gib):
            return samples
    return None


def _memory(network: Network, execution: ExecutionConfig, layout: Layout, *, count: int, on_gpu: bool) -> Memory:
    shards = layout.shards(execution)
    weights, trained = FLOAT32 * network.weights // shards, FLOAT32 * network.trained // shards
    state = weights + 4 * trained
    is_offloaded = execution.cpu_offload and on_gpu and shards > 1
    on_device = 0 if is_offloaded else 1
    judges = network.judges
    whole = FLOAT32 * network.trained + judges.gradients
    made_before = _gradients_before(whole, layout, shards, count)
    copies = _Copies(execution, shards)
    moments = [
        kept + copies.at(layer) + max(made_before, on_device * min(made, trained) + judges.gradients)
        for layer, kept, made in _backward(network, copies, shards)
    ]
    forward = copies.cached(network) + network.losses + sum(layer.kept for layer in network.layers)
    judging = max(judges.distance + made_before, judges.duel + max(judges.largest_gradient + made_before, judges.gradients))
    beginning = weights + min(weights, BROADCAST_BYTES) if shards == 1 and layout.num_gpus > 1 else 0
    always = on_device * (weights + 3 * trained) + judges.held + BATCHES_HELD * count * network.batch
    return Memory(
        weights=on_device * weights,
        gradients=on_device * trained,
        moments=on_device * 2 * trained,
        average=on_device * trained,
        judges=judges.held + judges.gradients,
        copies=max(copies.cached(network), *(copies.at(layer) for layer in network.layers)),
        activations=sum(layer.kept for layer in network.layers) + network.around + network.losses + max(judges.distance, judges.duel),
        peak=max(beginning, always + max(on_device * trained + judges.gradients, made_before, forward + judging, *moments)),
        host=state * (1 - on_device),
    )


def _gradients_before(whole: int, layout: Layout, shards: int, count: int) -> int:
    """Gradients that are there before the last backward pass of a step begins, of so many in all. Units: bytes."""
    # Those of earlier micro-batches wait for the last one outside of DDP's buckets, and whole where the state is split.
    buckets = whole if shards == 1 and layout.num_gpus > 1 else 0
    return buckets + (whole if count > 1 else 0)


@dataclass(frozen=True)
class _Copies:
    """Weights that are on the device a second time. Units: bytes."""

    execution: ExecutionConfig
    shards: int

    def cached(self, network: Network) -> int:
        """In half precision, of weights that are not split: autocast holds every one of them to the end of the forward pass."""
        return self.kept(network.layers) if self.shards == 1 else 0

    def kept(self, layers: Sequence[Layer]) -> int:
        is_half = self.execution.precision == "bfloat16" and self.shards == 1
        return BFLOAT16 * sum(layer.weights for layer in layers if layer.is_passed) if is_half else 0

    def at(self, layer: Layer) -> int:
        """While a layer's gradients are made: whole layers, the gradients of one, and those on their way to be split."""
        if self.shards == 1:
            return self.kept([layer])
        width = BFLOAT16 if self.execution.precision == "bfloat16" else FLOAT32
        return layer.weights * GATHERED_LAYERS * width + layer.trained * (width + FLOAT32)


def _backward(network: Network, copies: _Copies, shards: int) -> Iterator[tuple[Layer, int, int]]:
    """Each layer in the order of the backward pass, with what is alive at its worst moment and the gradients made before."""
    is_kept = copies.execution.activation_checkpointing == "none"
    kept, made = network.around + sum(layer.kept for layer in network.layers), 0
    for index in reversed(range(len(network.layers))):
        layer, earlier = network.layers[index], network.layers[:index]
        losses = network.losses if index + 1 == len(network.layers) else 0
        yield layer, kept + layer.again + losses + (copies.kept(earlier) if is_kept else 0), made
        kept -= layer.kept
        made += FLOAT32 * layer.trained // shards
