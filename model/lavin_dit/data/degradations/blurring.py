"""Blur: a lens out of focus, and a camera that moves while the shutter is open."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal import oaconvolve

from lavin_dit.data.degradations.light import to_8_bits, to_light, to_picture
from lavin_dit.data.pixels import Picture
from lavin_dit.data.task import Depth

REFERENCE_SIZE = 64
BLUR_SIGMA = (2.5, 4.0)
PATH_LENGTH = (0.1, 0.22)
"""Of the picture's height."""
MAX_BEND = 2.5
"""Radians that the direction of a curved path turns by."""
STRAIGHT_CHANCE = 0.4


def blur(picture: Picture, _depth: Depth | None, generator: np.random.Generator) -> Picture:
    """A lens out of focus: Gaussian, sigma 2.5-4 pixels at 64 pixels a side."""
    sigma = generator.uniform(*BLUR_SIGMA) * picture.shape[0] / REFERENCE_SIZE
    sharp = picture.astype(np.float32) / 255
    return to_8_bits(gaussian_filter(sharp, (sigma, sigma, 0), mode="nearest"))


def shake(picture: Picture, _depth: Depth | None, generator: np.random.Generator) -> Picture:
    """Gathers linear light while the camera moves along a straight or curved path, 10-22 % of the picture long."""
    kernel = draw_path(picture.shape[0], generator)
    reach = kernel.shape[0] // 2
    light = np.pad(to_light(picture).astype(np.float64), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return to_picture(oaconvolve(light, kernel[..., None], mode="valid", axes=(0, 1)))


def draw_path(height: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """The time spent at each offset from the middle, as a square of odd size that sums to 1."""
    length = generator.uniform(*PATH_LENGTH) * height
    direction = generator.uniform(0, 2 * math.pi)
    bend = 0.0 if generator.uniform() < STRAIGHT_CHANCE else generator.uniform(-MAX_BEND, MAX_BEND)
    num_points = 4 * math.ceil(length) + 1
    angles = [direction + bend * (point / (num_points - 1) - 0.5) for point in range(num_points)]
    steps = np.array([(math.cos(angle), math.sin(angle)) for angle in angles]) * length / num_points
    points = np.cumsum(steps, axis=0)
    return _splat(points - points.mean(axis=0))


def _splat(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares each point out over the four cells around it."""
    reach = math.ceil(np.abs(points).max()) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    corner = np.floor(points).astype(np.int64)
    part = points - corner
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        shares = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
        np.add.at(kernel, (corner[:, 1] + dy + reach, corner[:, 0] + dx + reach), shares)
    return np.asarray(kernel / kernel.sum(), np.float64)
