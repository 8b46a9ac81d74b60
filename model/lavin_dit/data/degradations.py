"""What restoration tasks undo: each function spoils a clean picture, by the given generator alone, and returns 8-bit RGB.

Shapes: (h, w, 3) uint8 in and out. Sizes are fractions of the picture, so that a degradation looks the same at every resolution.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from lavin_dit.data.encodings import Picture

REFERENCE_SIZE = 64
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
HOLE_GREY = 128
HOLE_SHARE = (0.2, 0.4)
NOISE_SIGMA = (0.15, 0.3)
PHOTONS = (25.0, 100.0)
BLUR_SIGMA = (2.5, 4.0)
DOWNSCALE = 8
"""As coarse as one latent cell: at 4 a plain nearest enlargement is already as good as a small ST-VAE's own reconstruction."""


def remove_colour(picture: Picture, _: np.random.Generator) -> Picture:
    """Keeps the luma (ITU-R BT.601) alone."""
    return np.repeat(_to_8_bits(picture @ LUMA / 255)[..., None], 3, axis=-1)


def cut_holes(picture: Picture, generator: np.random.Generator) -> Picture:
    """Fills random boxes and strokes with grey until 20-40 % of the picture is gone."""
    spoilt = picture.copy()
    spoilt[draw_holes(picture.shape[0], picture.shape[1], generator)] = HOLE_GREY
    return spoilt


def draw_holes(height: int, width: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """A mask (h, w) of boxes and strokes that covers 20-40 %."""
    goal = generator.uniform(HOLE_SHARE[0], HOLE_SHARE[1] - 0.1)
    holes = np.zeros((height, width), np.bool_)
    while holes.mean() < goal:
        more = holes | _draw_hole(height, width, generator)
        if more.mean() <= HOLE_SHARE[1]:
            holes = more
    return holes


def _draw_hole(height: int, width: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    x, y = generator.uniform(0, 1, 2) * (width, height)
    if generator.uniform() < 0.5:
        half_width, half_height = generator.uniform(0.06, 0.18, 2) * (width, height)
        pen.rectangle((x - half_width, y - half_height, x + half_width, y + half_height), fill=1)
    else:
        steps = generator.uniform(-0.35, 0.35, (4, 2)) * (width, height)
        corners = np.clip(np.array([x, y]) + np.cumsum(steps, axis=0), 0, (width, height))
        pen.line(
            [(float(x), float(y)) for x, y in corners], fill=1, width=max(1, round(generator.uniform(0.05, 0.09) * width)), joint="curve"
        )
    return np.asarray(canvas).astype(np.bool_)


def add_noise(picture: Picture, generator: np.random.Generator) -> Picture:
    """Photon (Poisson) noise of a dim exposure, then Gaussian read-out noise of sigma 0.15-0.3."""
    photons = generator.uniform(*PHOTONS)
    counted = generator.poisson(picture / 255.0 * photons) / photons
    return _to_8_bits(counted + generator.normal(0.0, generator.uniform(*NOISE_SIGMA), picture.shape))


def blur(picture: Picture, generator: np.random.Generator) -> Picture:
    """A lens out of focus: Gaussian, sigma 2.5-4 pixels at 64 pixels a side."""
    sigma = generator.uniform(*BLUR_SIGMA) * picture.shape[0] / REFERENCE_SIZE
    sharp = picture.astype(np.float32) / 255
    return _to_8_bits(gaussian_filter(sharp, (sigma, sigma, 0), mode="nearest"))


def shrink(picture: Picture, _: np.random.Generator) -> Picture:
    """Averages blocks of 8x8 pixels and enlarges them again, each to a plain square."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((max(1, width // DOWNSCALE), max(1, height // DOWNSCALE)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def _to_8_bits(values: NDArray[np.floating]) -> Picture:
    return np.asarray(np.rint(np.clip(values, 0.0, 1.0) * 255), np.uint8)
