"""The layers of the networks as their memory follows from them: what each keeps, makes again and learns. Never imports torch."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from lavin_dit.planning import dit_activations, vae_activations
from lavin_dit.planning.dit_activations import Arithmetic, Episodes, Learning
from lavin_dit.planning.flops import BlockFlops, block_flops
from lavin_dit.planning.vae_layers import Volume, layer_flops, vae_layers
from lavin_dit.planning.vae_terms import Judges, judges_of
from lavin_dit.planning.weights import (
    Weight,
    block_weights,
    first_weights,
    last_weights,
    lora_of,
    modulation_weights,
    num_trained,
    num_weights,
    vae_layer_weights,
)
from lavin_dit.planning.workload import episodes_flops, largest_episodes
from lavin_dit.presets import PATCH_SIZE, SPATIAL_FACTOR, DitShape, VaeShape
from lavin_dit.training_config import LoraConfig, TrainDitConfig, TrainVaeConfig

SMALLEST = SPATIAL_FACTOR * PATCH_SIZE
NO_JUDGES = Judges(held=0, gradients=0, largest_gradient=0, distance=0, duel=0)


@dataclass(frozen=True)
class Layer:
    """A layer on a micro-batch. Units: weights in numbers, the rest in bytes."""

    weights: int
    trained: int
    is_passed: bool
    """Whether the backward pass comes to it: whether anything at or before it is trained."""
    forward: float
    """Its part of the forward pass's operations, in any unit."""
    learnt: float
    """What the backward pass takes beyond as many: for the weights that are trained, and for the second factor of what has none."""
    kept: int
    again: int
    """Made again for its backward pass, and gradients at its worst moment."""


@dataclass(frozen=True)
class Network:
    """What a network's memory follows from."""

    weights: int
    trained: int
    layers: Sequence[Layer]
    """In the order of the forward pass."""
    around: int
    """What the layers' surroundings keep until the end of the backward pass. Units: bytes."""
    losses: int
    batch: int
    """Of one micro-batch."""
    judges: Judges

    @property
    def backward(self) -> float:
        """Operations of its backward pass, in forwards: 2 where everything is learnt, of what is passed through, and of what is learnt."""
        return _backward(self.layers)


@dataclass(frozen=True)
class _Sizes:
    """How many numbers a layer's weights are."""

    held: int
    trained: int
    computing: int
    """Those that the layer computes with: nobody reads the last block's prompt."""


def dit_network(config: TrainDitConfig, *, samples: int, resolution: int, frames: int, on_gpu: bool) -> Network:
    """The J-DiT on episodes of pictures, or of clips of some frames, that show the most pairs."""
    arithmetic = Arithmetic(config.execution.precision, on_gpu)
    episodes = largest_episodes(config, samples=samples, resolution=resolution, frames=frames)
    sizes = _dit_sizes(config.shape, config.frozen, config.lora)
    first, *inner, _last = sizes
    return Network(
        weights=sum(layer.held for layer in sizes),
        trained=sum(layer.trained for layer in sizes),
        layers=_dit_layers(config, inner, episodes, arithmetic, is_passed=first.trained > 0),
        around=dit_activations.embedders_memory(config.shape, episodes, arithmetic) if first.trained else 0,
        losses=dit_activations.losses_memory(config.shape, episodes, arithmetic),
        batch=dit_activations.batch_memory(episodes),
        judges=NO_JUDGES,
    )


def vae_network(config: TrainVaeConfig, *, samples: int, resolution: int, frames: int, on_gpu: bool) -> Network:
    """The ST-VAE on pictures, or on clips of some frames."""
    arithmetic = Arithmetic(config.execution.precision, on_gpu)
    pixels = Volume(frames, resolution, resolution)
    layers = _vae_layers(config, pixels, samples, arithmetic)
    return Network(
        weights=sum(layer.weights for layer in layers),
        trained=sum(layer.trained for layer in layers),
        layers=layers,
        around=0,
        losses=samples * vae_activations.losses_memory(pixels),
        batch=samples * vae_activations.batch_memory(pixels),
        judges=judges_of(config, pixels, samples),
    )


def dit_training_flops(config: TrainDitConfig, episodes: Episodes) -> float:
    """A micro-batch's forward and backward pass through the J-DiT, with gradients of what is learnt alone."""
    first, *inner, _last = _dit_sizes(config.shape, config.frozen, config.lora)
    layers = _dit_layers(config, inner, episodes, Arithmetic(config.execution.precision, on_gpu=False), is_passed=first.trained > 0)
    return (1 + _backward(layers)) * episodes_flops(config, episodes)


def vae_passes(config: TrainVaeConfig) -> float:
    """Forward and backward pass of the ST-VAE on pictures, in forwards: 3 where everything is learnt; without the terms of its loss."""
    return 1 + vae_network(config, samples=1, resolution=SMALLEST, frames=1, on_gpu=False).backward


@lru_cache
def _dit_sizes(shape: DitShape, frozen: tuple[str, ...], lora: LoraConfig | None) -> tuple[_Sizes, ...]:
    """What comes before the blocks, every modulation, every block, what comes after them."""
    modulations = [modulation_weights(shape, index) for index in range(shape.depth)]
    blocks = [block_weights(shape, index) for index in range(shape.depth)]
    return tuple(_sizes(weights, frozen, lora) for weights in (first_weights(shape), *modulations, *blocks, last_weights(shape)))


@lru_cache
def _vae_sizes(shape: VaeShape, frozen: tuple[str, ...]) -> tuple[_Sizes, ...]:
    return tuple(_sizes(weights, frozen, None) for weights in vae_layer_weights(shape))


def _sizes(weights: Sequence[Weight], frozen: Sequence[str], lora: LoraConfig | None) -> _Sizes:
    held = num_weights(weights) + lora_of(weights, frozen, lora)
    return _Sizes(held, num_trained(weights, frozen, lora), num_weights([weight for weight in weights if weight.trained]))


def _dit_layers(
    config: TrainDitConfig, sizes: Sequence[_Sizes], episodes: Episodes, arithmetic: Arithmetic, *, is_passed: bool
) -> list[Layer]:
    """Every modulation is made before the first block, and what it keeps is counted with its block."""
    shape, rank = config.shape, config.lora.rank if config.lora else 0
    memories = [(0, 0)] * shape.depth
    flops = [BlockFlops(2.0 * size.computing, 0.0) for size in sizes[: shape.depth]]
    for index, size in enumerate(sizes[shape.depth :]):
        learning = Learning(linears=size.trained > 0, rank=rank)
        is_last = index + 1 == shape.depth
        flops.append(block_flops(shape, episodes.prompt, episodes.answer, is_last=is_last))
        block = dit_activations.block_memory(shape, episodes, arithmetic, is_last=is_last, learning=learning)
        kept = block.kept_with(config.execution.activation_checkpointing)
        memories.append((kept, block.kept - kept + block.backward))
    return [
        _layer(size, passed, of.weights, *memory, attention=of.attention)
        for size, passed, of, memory in zip(sizes, _passed(sizes, is_passed=is_passed), flops, memories, strict=True)
    ]


def _vae_layers(config: TrainVaeConfig, pixels: Volume, samples: int, arithmetic: Arithmetic) -> list[Layer]:
    checkpointing, sizes = config.execution.activation_checkpointing, _vae_sizes(config.shape, config.frozen)
    layers = []
    for layer, size, passed in zip(vae_layers(config.shape, pixels), sizes, _passed(sizes, is_passed=False), strict=True):
        memory = vae_activations.layer_memory(layer, arithmetic)
        kept = samples * memory.kept_with(checkpointing) + memory.kernels
        again = samples * (memory.recomputed_with(checkpointing) + memory.backward)
        layers.append(_layer(size, passed, layer_flops(layer), kept, again))
    return layers


def _layer(size: _Sizes, is_passed: bool, weights: float, kept: int, again: int, *, attention: float = 0.0) -> Layer:
    """`weights` and `attention`: operations of the forward pass."""
    learnt = weights * min(size.trained / size.computing, 1.0) + attention * is_passed
    return Layer(size.held, size.trained, is_passed, weights + attention, learnt, kept * is_passed, again * is_passed)


def _backward(layers: Sequence[Layer]) -> float:
    """Operations of their backward pass, in forwards."""
    both = sum(layer.forward * layer.is_passed + layer.learnt for layer in layers)
    return both / sum(layer.forward for layer in layers)


def _passed(sizes: Sequence[_Sizes], *, is_passed: bool) -> list[bool]:
    """Of each layer, after something that the backward pass does or does not come to."""
    _, *each = accumulate((size.trained > 0 for size in sizes), operator.or_, initial=is_passed)
    return each
