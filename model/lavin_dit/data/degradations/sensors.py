"""What a camera's sensor does to a picture: noise, too little light, one colour a pixel."""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.degradations.light import to_8_bits, to_light, to_picture
from lavin_dit.data.pixels import Picture
from lavin_dit.data.task import Depth

NOISE_SIGMA = (0.15, 0.3)
PHOTONS = (25.0, 100.0)
EXPOSURE = (0.02, 0.08)
FULL_WELL_PHOTONS = (1500.0, 6000.0)
READ_NOISE_PHOTONS = (1.0, 4.0)


def add_noise(picture: Picture, _depth: Depth | None, generator: np.random.Generator) -> Picture:
    """Photon (Poisson) noise of a dim exposure, then Gaussian read-out noise of sigma 0.15-0.3."""
    photons = generator.uniform(*PHOTONS)
    counted = generator.poisson(picture / 255.0 * photons) / photons
    return to_8_bits(counted + generator.normal(0.0, generator.uniform(*NOISE_SIGMA), picture.shape))


def darken(picture: Picture, _depth: Depth | None, generator: np.random.Generator) -> Picture:
    """An exposure of 2-8 % of the light, with the noise of its few photons and of their read-out.

    Noise is Poisson-Gaussian in linear light: in the dark display values it grows to several grey levels.
    """
    photons = generator.uniform(*FULL_WELL_PHOTONS)
    exposed = to_light(picture) * generator.uniform(*EXPOSURE) * photons
    read = generator.normal(0.0, generator.uniform(*READ_NOISE_PHOTONS), picture.shape)
    return to_picture((generator.poisson(exposed) + read) / photons)


def keep_one_colour(picture: Picture, _depth: Depth | None, _generator: np.random.Generator) -> Picture:
    """What a Bayer sensor sees: each pixel keeps red, green or blue, in the pattern RGGB, and the other two are black."""
    return np.where(bayer_pattern(*picture.shape[:2]), picture, np.uint8(0))


def bayer_pattern(height: int, width: int) -> NDArray[np.bool_]:
    """Which colour each pixel keeps. Shapes: returns (h, w, 3), one true value a pixel; cells of 2x2 pixels, red first, blue last."""
    is_odd_row, is_odd_column = np.arange(height)[:, None] % 2 == 1, np.arange(width)[None, :] % 2 == 1
    red, blue = ~is_odd_row & ~is_odd_column, is_odd_row & is_odd_column
    return np.stack([red, ~(red | blue), blue], axis=-1)
