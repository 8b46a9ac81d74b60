"""Pixels at the runtime's door: what a caller may hand in, and their way to a network's floats and back. Needs numpy only."""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.errors import InputError

SIZE_STEP = 16
"""Height and width are multiples of this: 8x8 pixels a latent, 2x2 latents a token."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def check_images(queries: Pixels, inputs: Pixels, targets: Pixels) -> None:
    """Refuses pictures that do not fit each other.

    Shapes: queries `(b, h, w, 3)`, inputs and targets `(b or 1, n, h, w, 3)`.
    Raises: InputError naming the argument, what it is, and what is allowed.
    """
    _check_array("queries", queries, "(b, h, w, 3)", 4)
    _check_array("context_inputs", inputs, "(b, n, h, w, 3)", 5)
    _check_array("context_targets", targets, "(b, n, h, w, 3)", 5)
    if inputs.shape != targets.shape:
        raise InputError(f"context_targets have the shape {targets.shape}: must be that of context_inputs, {inputs.shape}")
    if inputs.shape[2:] != queries.shape[1:]:
        raise InputError(
            f"context_inputs have the shape {inputs.shape}: their images must be as large as the queries, {queries.shape[1:3]}"
        )
    if len(inputs) not in (1, len(queries)):
        raise InputError(f"context_inputs are for {len(inputs)} queries: must be for 1 (shown with all of them) or {len(queries)}")


def _check_array(name: str, array: Pixels, layout: str, ndim: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        raise InputError(f"{name} are {getattr(array, 'dtype', type(array).__name__)}: must be an array of uint8")
    if array.ndim != ndim or array.shape[-1] != 3 or not array.size:
        raise InputError(f"{name} have the shape {array.shape}: must be {layout} with none of them 0")
    height, width = array.shape[-3:-1]
    if height % SIZE_STEP or width % SIZE_STEP:
        raise InputError(f"{name} are {height}x{width} pixels: height and width must be multiples of {SIZE_STEP}")


def check_draws(seed: int, first_index: int) -> None:
    """Refuses what cannot select noise.

    Raises: InputError naming the argument, its value, and what is allowed.
    """
    for name, value in (("seed", seed), ("first_index", first_index)):
        if not 0 <= value < 2**32:
            raise InputError(f"{name} is {value}: must be from 0 to {2**32 - 1}")


def to_model(images: Pixels) -> Floats:
    """Pixels `(b, h, w, 3)` in 0..255 to `(b, 3, h, w)` in [-1, 1]."""
    scaled = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def to_pixels(images: Floats) -> Pixels:
    """`(b, 3, h, w)` in [-1, 1] to pixels `(b, h, w, 3)`: clamped and rounded."""
    scaled = (images.clip(-1.0, 1.0) + np.float32(1)) * np.float32(127.5)
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(0, 2, 3, 1))
