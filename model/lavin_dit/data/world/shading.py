"""Light on surfaces and in the sky: Lambert and ambient light, highlights, clouds, haze.

Shapes: points, normals, directions and colours are `(3, s)` float32, a coordinate a row.
Units: colours in [0, 1], as displayed; light is added up in linear units (display squared).
"""

from collections.abc import Sequence

import numpy as np

from lavin_dit.data.world.layout import Lamp, Light
from lavin_dit.data.world.textures import Colour, noise
from lavin_dit.data.world.vectors import Array, dot, normalised

HIGHLIGHT_SQUARINGS = 5
CLOUD_HEIGHT = np.float32(0.25)
CLOUD_WHITE = np.float32(0.97)


def paint_sky(light: Light, directions: Array) -> Array:
    """The sky along view directions: from the horizon's colour to the zenith's, with clouds."""
    up = np.clip(normalised(directions)[1], 0, 1)
    horizon, zenith = _column(light.horizon), _column(light.zenith)
    sky = horizon + (zenith - horizon) * np.sqrt(np.minimum(up * np.float32(1.6), 1))
    if light.clouds > 0:
        above = directions[0:3:2] / (np.maximum(directions[1], 0) + CLOUD_HEIGHT)
        density = np.clip((noise(above * 2 + np.float32(light.cloud_place)) + np.float32(light.clouds) - 1) * 3, 0, 1) * np.minimum(
            up * 8, 1
        )
        sky = sky + (CLOUD_WHITE - sky) * (np.float32(0.85) * density)
    return np.asarray(sky, np.float32)


def mirror(lamps: Sequence[Lamp], normals: Array, views: Array, gloss: Array) -> Array:
    """How much of lamps glossy surfaces would mirror; `views` are the unit directions of the rays. Shapes: returns (lamps, s)."""
    halfway = normalised(directions_of(lamps)[:, :, None] - views[:, None])
    highlights = np.maximum(dot(normals[:, None], halfway), 0)
    for _ in range(HIGHLIGHT_SQUARINGS):
        highlights *= highlights
    return highlights * gloss


def light_up(light: Light, lamps: Sequence[Lamp], scattered: Array, mirrored: Array, albedo: Array, upwards: Array) -> Array:
    """Linear light that surfaces send to the camera.

    Shapes: what they scatter and mirror of lamps (lamps, s); `upwards`, of their normals, (s,).
    """
    sky = np.float32(light.ambient) * (np.float32(0.7) + np.float32(0.3) * upwards)
    diffuse, gleam = np.float32(0), np.float32(0)
    for lamp, rough, smooth in zip(lamps, scattered, mirrored, strict=True):
        colour = _column(lamp.colour)
        diffuse, gleam = diffuse + rough * colour, gleam + smooth * colour
    return np.asarray(albedo * albedo * (diffuse + sky) + gleam, np.float32)


def haze(light: Light, linear: Array, hidden: Array) -> Array:
    """Mixes surfaces into the horizon's colour; `hidden` says by how much. Shapes: (s,)."""
    return np.asarray(linear + (_column(light.horizon) ** 2 - linear) * hidden, np.float32)


def hidden_by_haze(light: Light, distances: Array) -> Array:
    """How much of a surface's own colour is lost."""
    # Of doubles: the last bit of a single's exponential goes by the processor.
    return (1 - np.exp(-np.square(np.minimum(distances, 1e3) / np.float32(light.haze_m)), dtype=np.float64)).astype(np.float32)


def directions_of(lamps: Sequence[Lamp]) -> Array:
    """Unit vectors that point at lamps. Shapes: returns (3, lamps)."""
    return np.array([lamp.towards for lamp in lamps], np.float32).T


def _column(colour: Colour) -> Array:
    return np.array(colour, np.float32)[:, None]
