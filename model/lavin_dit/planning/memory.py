"""How much memory a process needs on its device: what each part takes, and the most that is there at once. Never imports torch.

Tests and benchmarks/plan.py hold it against what torch's allocator gives out, on CPUs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lavin_dit.planning import dit_activations, vae_activations
from lavin_dit.planning.dit_activations import BFLOAT16, FLOAT32, Arithmetic, Episodes
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.parameters import block_parameters, dit_parameters, dit_trained_parameters, modulation_parameters
from lavin_dit.planning.vae_layers import Volume, decoder_layers, encoder_layers, layer_parameters
from lavin_dit.planning.vae_terms import judges_bytes, kernels_kept, terms_kept
from lavin_dit.training_config import ExecutionConfig, TrainDitConfig, TrainVaeConfig

RESERVED_GIB = 2.0
"""Of a GPU's memory, what is not for tensors: the CUDA context and NCCL's buffers (about 1 GiB), and fragments of torch's cache."""
GIB = 2**30
BATCHES_HELD = 2
"""The one that is learnt from, and the next, which is loaded meanwhile."""
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


@dataclass(frozen=True)
class _Layer:
    """A layer on a micro-batch. Units: weights in numbers, the rest in bytes."""

    weights: int
    kept: int
    again: int
    """Made again for its backward pass, and gradients at its worst moment."""


@dataclass(frozen=True)
class _Network:
    """What a network's memory follows from."""

    weights: int
    trained: int
    layers: Sequence[_Layer]
    """In the order of the forward pass."""
    around: int
    """What the layers' surroundings keep until the end of the backward pass. Units: bytes."""
    losses: int
    batch: int
    judges: int = 0
    """What networks that only judge its results hold from step to step."""


def dit_memory(config: TrainDitConfig, layout: Layout, *, samples: int, count: int, resolution: int, on_gpu: bool) -> Memory:
    """The J-DiT on `count` micro-batches a step, of `samples` episodes that show `max_pairs` pairs."""
    arithmetic = Arithmetic(config.execution.precision, on_gpu)
    episodes = Episodes.of_pairs(samples, num_pairs=config.max_pairs, resolution=resolution)
    network = _Network(
        weights=dit_parameters(config.shape),
        trained=dit_trained_parameters(config.shape),
        layers=_dit_layers(config, episodes, arithmetic),
        around=dit_activations.embedders_memory(config.shape, episodes, arithmetic),
        losses=dit_activations.losses_memory(config.shape, episodes, arithmetic),
        batch=count * dit_activations.batch_memory(episodes),
    )
    return _memory(network, config.execution, layout, count=count, on_gpu=on_gpu)


def vae_memory(config: TrainVaeConfig, layout: Layout, *, samples: int, count: int, resolution: int, on_gpu: bool) -> Memory:
    """The ST-VAE on `count` micro-batches a step, of `samples` images, or clips where it learns from some."""
    arithmetic = Arithmetic(config.execution.precision, on_gpu)
    pixels = Volume(config.clips.frames if config.clips else 1, resolution, resolution)
    weights = sum(layer_parameters(layer) for layers in (encoder_layers, decoder_layers) for layer in layers(config.shape, pixels))
    network = _Network(
        weights=weights,
        trained=weights,
        layers=_vae_layers(config, pixels, samples, arithmetic),
        around=0,
        losses=samples * (vae_activations.losses_memory(pixels) + terms_kept(config, pixels)) + kernels_kept(config, pixels),
        batch=count * samples * vae_activations.batch_memory(pixels),
        judges=judges_bytes(config),
    )
    return _memory(network, config.execution, layout, count=count, on_gpu=on_gpu)


def largest_micro_batch(memory_of: Callable[[MicroBatches], Memory], share: int, memory_gib: float) -> int | None:
    """The most samples, of a share, that fit at once; None where not even one does."""
    for samples in sorted({-(-share // count) for count in range(1, share + 1)}, reverse=True):
        if memory_of(MicroBatches.of_share(share, samples)).fits(memory_gib):
            return samples
    return None


def _dit_layers(config: TrainDitConfig, episodes: Episodes, arithmetic: Arithmetic) -> list[_Layer]:
    checkpointing = config.execution.activation_checkpointing
    # Every modulation is made before the first block, and what it keeps is counted with its block.
    layers = [_Layer(modulation_parameters(config.shape), 0, 0)] * config.shape.depth
    for index in range(config.shape.depth):
        block = dit_activations.block_memory(config.shape, episodes, arithmetic, is_last=index + 1 == config.shape.depth)
        kept = block.kept_with(checkpointing)
        layers.append(_Layer(block_parameters(config.shape), kept, block.kept - kept + block.backward))
    return layers


def _vae_layers(config: TrainVaeConfig, pixels: Volume, samples: int, arithmetic: Arithmetic) -> list[_Layer]:
    checkpointing = config.execution.activation_checkpointing
    layers = []
    for layer in (*encoder_layers(config.shape, pixels), *decoder_layers(config.shape, pixels)):
        memory = vae_activations.layer_memory(layer, arithmetic)
        kept = samples * memory.kept_with(checkpointing) + memory.kernels
        layers.append(_Layer(layer_parameters(layer), kept, samples * (memory.recomputed_with(checkpointing) + memory.backward)))
    return layers


def _memory(network: _Network, execution: ExecutionConfig, layout: Layout, *, count: int, on_gpu: bool) -> Memory:
    shards = layout.shards(execution)
    weights, trained = FLOAT32 * network.weights // shards, FLOAT32 * network.trained // shards
    state = weights + 4 * trained
    is_offloaded = execution.cpu_offload and on_gpu and shards > 1
    on_device = 0 if is_offloaded else 1
    made_before = _gradients_before(network, layout, shards, count)
    copies = _Copies(execution, shards)
    moments = [
        kept + copies.at(layer) + max(made_before, on_device * min(made, trained))
        for layer, kept, made in _backward(network, copies, shards)
    ]
    forward = copies.cached(network) + network.losses + sum(layer.kept for layer in network.layers) + made_before
    always = on_device * (weights + 3 * trained) + network.judges + BATCHES_HELD * network.batch
    return Memory(
        weights=on_device * weights,
        gradients=on_device * trained,
        moments=on_device * 2 * trained,
        average=on_device * trained,
        judges=network.judges,
        copies=max(copies.cached(network), *(copies.at(layer) for layer in network.layers)),
        activations=sum(layer.kept for layer in network.layers) + network.around + network.losses,
        peak=always + max(on_device * trained, made_before, forward, *moments),
        host=state * (1 - on_device),
    )


def _gradients_before(network: _Network, layout: Layout, shards: int, count: int) -> int:
    """Gradients that are there before the last backward pass of a step begins. Units: bytes."""
    whole = FLOAT32 * network.trained
    # Those of earlier micro-batches wait for the last one outside of DDP's buckets, and whole where the state is split.
    buckets = whole if shards == 1 and layout.num_gpus > 1 else 0
    return buckets + (whole if count > 1 else 0)


@dataclass(frozen=True)
class _Copies:
    """Weights that are on the device a second time. Units: bytes."""

    execution: ExecutionConfig
    shards: int

    def cached(self, network: _Network) -> int:
        """In half precision, of weights that are not split: autocast holds every one of them to the end of the forward pass."""
        return self.kept(network.layers) if self.shards == 1 else 0

    def kept(self, layers: Sequence[_Layer]) -> int:
        is_half = self.execution.precision == "bfloat16" and self.shards == 1
        return BFLOAT16 * sum(layer.weights for layer in layers) if is_half else 0

    def at(self, layer: _Layer) -> int:
        """While a layer's gradients are made: whole layers, the gradients of one, and those on their way to be split."""
        if self.shards == 1:
            return self.kept([layer])
        width = BFLOAT16 if self.execution.precision == "bfloat16" else FLOAT32
        return layer.weights * ((GATHERED_LAYERS + 1) * width + FLOAT32)


def _backward(network: _Network, copies: _Copies, shards: int) -> Iterator[tuple[_Layer, int, int]]:
    """Each layer in the order of the backward pass, with what is alive at its worst moment and the gradients made before."""
    is_kept = copies.execution.activation_checkpointing == "none"
    kept, made = network.around + sum(layer.kept for layer in network.layers), 0
    for index in reversed(range(len(network.layers))):
        layer, earlier = network.layers[index], network.layers[:index]
        losses = network.losses if index + 1 == len(network.layers) else 0
        yield layer, kept + layer.again + losses + (copies.kept(earlier) if is_kept else 0), made
        kept -= layer.kept
        made += FLOAT32 * layer.weights // shards
