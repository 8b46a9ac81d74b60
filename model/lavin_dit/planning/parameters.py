"""How many weights the networks have, from their shapes alone. Never imports torch."""

from lavin_dit.planning.flops import token_weights
from lavin_dit.planning.vae_layers import Volume, decoder_layers, encoder_layers, layer_parameters
from lavin_dit.presets import MODULATIONS_PER_SIDE, PATCH_DIM, SPATIAL_FACTOR, TIME_FEATURES, DitShape, VaeShape

SIDES = 2


def dit_parameters(shape: DitShape) -> int:
    """All weights of a J-DiT."""
    dim = shape.dim
    ends = SIDES * (PATCH_DIM + 3) * dim + SIDES * dim + (dim + 1 + PATCH_DIM) * dim + PATCH_DIM
    time = (TIME_FEATURES + 1) * dim + (dim + 1) * dim
    return shape.depth * (block_parameters(shape) + modulation_parameters(shape)) + ends + time


def dit_trained_parameters(shape: DitShape) -> int:
    """Those that training changes: nobody reads the last block's prompt."""
    _, query_out, feed_forward = token_weights(shape)
    return dit_parameters(shape) - query_out - feed_forward - shape.dim


def block_parameters(shape: DitShape) -> int:
    """One block without its modulations."""
    return SIDES * (sum(token_weights(shape)) + shape.dim + shape.num_kv_heads * shape.head_dim)


def modulation_parameters(shape: DitShape) -> int:
    """One block's modulations."""
    return SIDES * MODULATIONS_PER_SIDE * shape.dim * (shape.dim + 1)


def vae_parameters(shape: VaeShape) -> tuple[int, int]:
    """All weights of an ST-VAE's encoder, and of its decoder."""
    smallest = Volume(1, SPATIAL_FACTOR, SPATIAL_FACTOR)
    encoder, decoder = (sum(map(layer_parameters, layers(shape, smallest))) for layers in (encoder_layers, decoder_layers))
    return encoder, decoder
