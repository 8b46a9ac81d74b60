"""How much memory a training process needs on its device: an estimate that refuses what cannot fit, before a device is asked for."""

import torch

from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import PATCH_SIZE, SPATIAL_FACTOR, DitShape
from lavin_dit.weights import num_parameters

BYTES_PER_PARAMETER = 4 + 4 + 8 + 4
"""Weights, gradients, AdamW's two moments, moving average; all in float32, none of them sharded."""
FLOATS_KEPT_PER_WIDTH = 25
"""Activations that a block keeps for its backward pass, per token and unit of width: 23.7 to 24.7 as counted at three sizes."""


def dit_training_bytes(shape: DitShape, *, samples: int, max_pairs: int, resolution: int) -> int:
    """The J-DiT in training. Units: bytes a process; `samples` of its share of the batch, `resolution` in pixels a side."""
    with torch.device("meta"):
        parameters = num_parameters(JDit(shape))
    frames = 2 * max_pairs + 2
    tokens = frames * (resolution // (SPATIAL_FACTOR * PATCH_SIZE)) ** 2
    activations = samples * tokens * shape.depth * shape.dim * FLOATS_KEPT_PER_WIDTH * 4
    return parameters * BYTES_PER_PARAMETER + activations
