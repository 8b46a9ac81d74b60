"""What hangs or falls between the camera and the scene: haze, rain and snow, each denser with depth and hidden behind what is nearer.

All are in linear light. Particles fall in layers of one distance; at a metre a picture is taken to be a metre wide, farther in proportion,
so that a layer's particles grow smaller and more with its distance. They are drawn larger than real ones, as a lens that is
focused farther away shows them.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from lavin_dit.data.degradations.light import Light, to_light, to_picture
from lavin_dit.data.pixels import Picture
from lavin_dit.data.task import Depth

Coverage = NDArray[np.float32]
"""The share of each pixel that particles cover. Shapes: (h, w)."""

HAZE_PER_M = (0.04, 0.14)
VEIL_PER_M = (0.02, 0.06)
AIR_LIGHT = (0.6, 0.9)
AIR_TINT = 0.04

RAIN_LAYERS_M = (4.0, 2.0, 1.0)
DROPS_PER_M2 = (25.0, 60.0)
STREAK_LENGTH_M = (0.2, 0.4)
STREAK_WIDTH_M = 0.01
STREAK_OPACITY = (0.3, 0.8)
SLANT = (-0.4, 0.4)
SUBPIXELS = 4

SNOW_LAYERS_M = (8.0, 5.5, 4.0, 2.7, 1.8, 1.2)
FLAKES_PER_M2 = (10.0, 25.0)
FLAKE_RADIUS_M = (0.012, 0.02)
SNOW_LIGHT = (0.85, 1.0)

HORIZON = (0.1, 0.5)
NEAREST_M, FARTHEST_M = (1.5, 3.0), (8.0, 24.0)
UNEVENNESS = (0.6, 1.4)


def add_haze(picture: Picture, depth: Depth | None, generator: np.random.Generator) -> Picture:
    """Atmospheric scattering, 4-14 % of the light a metre. Source: Koschmieder's law, I = J t + A (1 - t), t = exp(-beta d)."""
    depth = imagine_depth(picture, generator) if depth is None else depth
    return to_picture(scatter(to_light(picture), depth, _draw_air(generator), generator.uniform(*HAZE_PER_M)))


def add_rain(picture: Picture, depth: Depth | None, generator: np.random.Generator) -> Picture:
    """The veil of far rain, then streaks of near drops that show the light of the sky.

    Source: after Li et al., Heavy Rain Image Restoration, CVPR 2019.
    """
    depth = imagine_depth(picture, generator) if depth is None else depth
    air = _draw_air(generator)
    light = scatter(to_light(picture), depth, air, generator.uniform(*VEIL_PER_M))
    for distance, streaks in draw_rain(depth.shape[0], depth.shape[1], generator):
        light = _cover(light, np.where(depth > distance, streaks, np.float32(0)), air)
    return to_picture(light)


def add_snow(picture: Picture, depth: Depth | None, generator: np.random.Generator) -> Picture:
    """The veil of far snow, then flakes, small and many to large and few."""
    depth = imagine_depth(picture, generator) if depth is None else depth
    light = scatter(to_light(picture), depth, _draw_air(generator), generator.uniform(*VEIL_PER_M))
    snow = np.full(3, generator.uniform(*SNOW_LIGHT), np.float32)
    for distance, flakes in draw_snow(depth.shape[0], depth.shape[1], generator):
        light = _cover(light, np.where(depth > distance, flakes, np.float32(0)), snow)
    return to_picture(light)


def scatter(light: Light, depth: Depth, air: Light, per_m: float) -> Light:
    """The light that is left of a scene's, and what the air adds. Shapes: light (h, w, 3), depth (h, w), air (3,)."""
    transmission: Light = np.exp(-per_m * depth, dtype=np.float64).astype(np.float32)[..., None]
    return light * transmission + air * (1 - transmission)


def imagine_depth(picture: Picture, generator: np.random.Generator) -> Depth:
    """A plausible depth for a picture without one: uneven ground up to a horizon, and a backdrop above it. Units: metres."""
    height, width = picture.shape[:2]
    horizon, nearest = generator.uniform(*HORIZON) * height, generator.uniform(*NEAREST_M)
    rows = np.maximum(np.arange(height) + 0.5 - horizon, 1e-3)
    coarse = Image.fromarray(generator.uniform(*UNEVENNESS, (5, 5)).astype(np.float32))
    unevenness = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    ground = np.minimum(nearest * (height - horizon) / rows[:, None], generator.uniform(*FARTHEST_M))
    return np.asarray(ground * unevenness, np.float32)


def _draw_air(generator: np.random.Generator) -> Light:
    return (generator.uniform(*AIR_LIGHT) + generator.uniform(-AIR_TINT, AIR_TINT, 3)).astype(np.float32)


def _cover(light: Light, coverage: Coverage, colour: Light) -> Light:
    return light + coverage[..., None] * (colour - light)


def draw_rain(height: int, width: int, generator: np.random.Generator) -> Iterator[tuple[float, Coverage]]:
    """Layers of rain from far to near: each one's distance, and how much of each pixel it covers. Units: metres."""
    drops_per_m2, slant = generator.uniform(*DROPS_PER_M2), generator.uniform(*SLANT)
    length = generator.uniform(*STREAK_LENGTH_M)
    for distance in RAIN_LAYERS_M:
        yield distance, _draw_streaks((height, width), distance, length, slant, round(drops_per_m2 * distance**2), generator)


def _draw_streaks(
    size: tuple[int, int], distance: float, length: float, slant: float, number: int, generator: np.random.Generator
) -> Coverage:
    """How much of each pixel a layer's streaks cover: drawn in sub-pixels, then averaged."""
    height, width = size[0] * SUBPIXELS, size[1] * SUBPIXELS
    canvas = np.zeros((height, width), np.float32)
    start = generator.uniform((-length / distance, -0.2), (1.0, 1.2), (number, 2)) * (height, width)
    opacity = generator.uniform(*STREAK_OPACITY, number).astype(np.float32)
    along = np.arange(max(2, round(length / distance * height)))
    across = np.arange(max(1, round(STREAK_WIDTH_M / distance * height)))
    rows = start[:, 0, None, None] + along[:, None] * math.cos(slant) + 0 * across
    columns = start[:, 1, None, None] + along[:, None] * math.sin(slant) + across
    rows, columns = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    canvas[rows[is_inside], columns[is_inside]] = np.broadcast_to(opacity[:, None, None], rows.shape)[is_inside]
    return np.asarray(canvas.reshape(size[0], SUBPIXELS, size[1], SUBPIXELS).mean(axis=(1, 3)), np.float32)


def draw_snow(height: int, width: int, generator: np.random.Generator) -> Iterator[tuple[float, Coverage]]:
    """Layers of snow from far to near: each one's distance, and how much of each pixel it covers. Units: metres."""
    flakes_per_m2, radius = generator.uniform(*FLAKES_PER_M2), generator.uniform(*FLAKE_RADIUS_M)
    for distance in SNOW_LAYERS_M:
        yield distance, _draw_flakes((height, width), radius / distance * height, round(flakes_per_m2 * distance**2), generator)


def _draw_flakes(size: tuple[int, int], radius: float, number: int, generator: np.random.Generator) -> Coverage:
    """How much of each pixel a layer's soft flakes cover. Units: radius pixels."""
    canvas = np.zeros(size, np.float32)
    row, column = (generator.integers(side, size=number) for side in size)
    np.add.at(canvas, (row, column), math.pi * radius**2)
    return np.asarray(np.minimum(gaussian_filter(canvas, max(radius / 2, 0.4), mode="constant"), 1.0), np.float32)
