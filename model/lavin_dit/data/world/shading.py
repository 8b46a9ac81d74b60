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


def light_up(light: Light, lamps: Sequence[Lamp], lit: Array, albedo: Array, normals: Array, views: Array, gloss: Array) -> Array:
    """Linear light that surfaces send to the camera.

    Shapes: `lit` (0 in a lamp's shadow, 1 outside) is (lamps, s); `gloss` (s,); `views` are the unit directions of the rays.
    """
    sky = np.float32(light.ambient) * (np.float32(0.7) + np.float32(0.3) * normals[1])
    diffuse, mirrored = np.float32(0), np.float32(0)
    for lamp, is_lit in zip(lamps, lit, strict=True):
        towards, colour = _column(lamp.towards), _column(lamp.colour)
        lambert = np.maximum(dot(normals, towards), 0) * is_lit
        highlight = np.maximum(dot(normals, normalised(towards - views)), 0)
        for _ in range(HIGHLIGHT_SQUARINGS):
            highlight = highlight * highlight
        diffuse = diffuse + np.float32(lamp.strength) * lambert * colour
        mirrored = mirrored + gloss * highlight * is_lit * colour
    return np.asarray(albedo * albedo * (diffuse + sky) + mirrored, np.float32)


def haze(light: Light, linear: Array, distances: Array) -> Array:
    """Mixes far surfaces into the horizon's colour."""
    # Of doubles: the last bit of a single's exponential goes by the processor.
    share = (1 - np.exp(-np.square(np.minimum(distances, 1e3) / np.float32(light.haze_m)), dtype=np.float64)).astype(np.float32)
    return np.asarray(linear + (_column(light.horizon) ** 2 - linear) * share, np.float32)


def _column(colour: Colour) -> Array:
    return np.array(colour, np.float32)[:, None]
