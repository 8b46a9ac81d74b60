"""How many floating-point operations the networks take, counted from their shapes: a multiplication and its addition are two.

What is counted are matrix products and convolutions, as torch.utils.flop_counter does; norms, activations and the optimizer are not.
Never imports torch.
"""

from typing import NamedTuple

from lavin_dit.planning.vae_layers import Volume, decoder_layers, encoder_layers, layer_flops, recomputed_flops
from lavin_dit.presets import (
    MODULATIONS_PER_SIDE,
    PATCH_DIM,
    SPATIAL_FACTOR,
    TIME_FEATURES,
    DitShape,
    VaeShape,
)

TRAINING_FACTOR = 3.0
"""Forward and backward together, in forwards: the backward pass makes a gradient of both factors of every product."""
FULL_CHECKPOINTING = "full"
"""The one kind that makes products again; MFU does not count them as work done."""


class BlockFlops(NamedTuple):
    """A block's forward pass over one sample."""

    weights: float
    """Of products with weights."""
    attention: float
    """Of those of tokens with each other."""


def dit_flops(shape: DitShape, *, samples: int, prompt_tokens: int, answer_tokens: int) -> float:
    """One forward pass of the J-DiT. Units: tokens of each sample."""
    block, last = (sum(block_flops(shape, prompt_tokens, answer_tokens, is_last=is_last)) for is_last in (False, True))
    patches = 2 * (prompt_tokens + 2 * answer_tokens) * PATCH_DIM * shape.dim
    return float(samples * ((shape.depth - 1) * block + last + patches + 2 * time_weights(shape)))


def block_flops(shape: DitShape, prompt_tokens: int, answer_tokens: int, *, is_last: bool) -> BlockFlops:
    """A block without its modulations; the last one's prompt gives keys and values alone."""
    tokens = prompt_tokens + answer_tokens
    key_value, query_out, feed_forward = token_weights(shape)
    asking = answer_tokens if is_last else tokens
    return BlockFlops(
        weights=2.0 * (asking * (query_out + feed_forward) + tokens * key_value),
        attention=4.0 * asking * tokens * shape.dim,
    )


def token_weights(shape: DitShape) -> tuple[int, int, int]:
    """Weights of one side of a block that every token meets: of keys and values, of queries and output, of the feed-forward."""
    kv_dim = shape.num_kv_heads * shape.head_dim
    return 2 * shape.dim * kv_dim, 2 * shape.dim**2, 3 * shape.dim * shape.hidden_dim


def time_weights(shape: DitShape) -> int:
    """Weights, without biases, that a sample's time meets once: of its embedding, and of every modulation."""
    modulations = (2 * MODULATIONS_PER_SIDE * shape.depth + 1) * shape.dim**2
    return TIME_FEATURES * shape.dim + shape.dim**2 + modulations


def vae_flops(shape: VaeShape, *, samples: int, frames: int, height: int, width: int) -> tuple[float, float]:
    """One pass of the encoder, and one of the decoder, over clips; images have one frame and take a third."""
    pixels = Volume(frames, height, width)
    encode, decode = (sum(map(layer_flops, layers(shape, pixels))) for layers in (encoder_layers, decoder_layers))
    return float(samples * encode), float(samples * decode)


def dit_recomputed(checkpointing: str) -> float:
    """What activation checkpointing makes again of the J-DiT, in forwards: all blocks, or no product."""
    return 1.0 if checkpointing == FULL_CHECKPOINTING else 0.0


def vae_recomputed(shape: VaeShape, checkpointing: str) -> float:
    """What it makes again of the ST-VAE, in forwards over images: a share of its residual blocks, or no convolution."""
    if checkpointing != FULL_CHECKPOINTING:
        return 0.0
    pixels = Volume(1, SPATIAL_FACTOR, SPATIAL_FACTOR)
    layers = [*encoder_layers(shape, pixels), *decoder_layers(shape, pixels)]
    return sum(map(recomputed_flops, layers)) / sum(map(layer_flops, layers))
