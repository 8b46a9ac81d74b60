"""Colours of surfaces and sky: patterns, Lambert and ambient light, highlights, haze.

Shapes: points, normals, directions and colours are `(3, s)` float32, a coordinate a row.
Units: colours in [0, 1], as displayed; light is added up in linear units (display squared).
"""

import numpy as np

from lavin_dit.data.geometry import Array, normalised
from lavin_dit.data.layout import Colour, Light, Material

FADE_M = 9.0
HAZE_M = 45.0
HIGHLIGHT_SQUARINGS = 5


def paint(material: Material, points: Array, distances: Array | None = None) -> Array:
    """Albedo at points in a surface's own coordinates; with `distances`, cells too small to see melt into their mean."""
    first, second = _column(material.first), _column(material.second)
    share = _share_of_second(material, points / np.float32(material.cell) + np.float32(material.phase))
    if distances is not None:
        contrast = 1 / (1 + (distances / np.float32(FADE_M)) ** 4)
        share = np.asarray(0.5 + (share - np.float32(0.5)) * contrast, np.float32)
    return np.asarray(first + (second - first) * share, np.float32)


def paint_sky(light: Light, directions: Array) -> Array:
    """The sky along view directions: from the horizon's colour to the zenith's."""
    up = np.clip(normalised(directions)[1], 0, 1)
    horizon, zenith = _column(light.horizon), _column(light.zenith)
    return np.asarray(horizon + (zenith - horizon) * np.sqrt(np.minimum(up * np.float32(1.6), 1)), np.float32)


def light_up(light: Light, albedo: Array, normals: Array, directions: Array, is_lit: Array, gloss: Array) -> Array:
    """Linear light that surfaces send to the camera.

    Shapes: `is_lit` (0 in a shadow, 1 outside) and `gloss` are (s,).
    """
    towards = _column(light.towards)
    lambert = np.maximum((normals * towards).sum(axis=0), 0) * is_lit
    sky = np.float32(light.ambient) * (np.float32(0.7) + np.float32(0.3) * normals[1])
    halfway = normalised(towards - normalised(directions))
    highlight = np.maximum((normals * halfway).sum(axis=0), 0)
    for _ in range(HIGHLIGHT_SQUARINGS):
        highlight = highlight * highlight
    return np.asarray(albedo * albedo * (np.float32(light.strength) * lambert + sky) + gloss * highlight * is_lit, np.float32)


def haze(light: Light, linear: Array, distances: Array) -> Array:
    """Mixes far surfaces into the horizon's colour."""
    share = 1 - np.exp(-np.square(np.minimum(distances, 1e3) / np.float32(HAZE_M)))
    return np.asarray(linear + (_column(light.horizon) ** 2 - linear) * share, np.float32)


def _column(colour: Colour) -> Array:
    return np.array(colour, np.float32)[:, None]


def _share_of_second(material: Material, cells: Array) -> Array:
    if material.pattern == "plain":
        return np.zeros(cells.shape[1], np.float32)
    if material.pattern == "patches":
        x, z = np.clip(cells[0], -1e4, 1e4), np.clip(cells[2], -1e4, 1e4)
        return np.asarray(0.5 + np.sin(2 * x + np.sin(3 * z)) * np.sin(2 * z + np.sin(2 * x)) / 2, np.float32)
    axes = {"checker": cells, "bands": cells[1:2] if material.gloss else cells[0:1], "panels": cells[0:3:2]}[material.pattern]
    return np.asarray(np.mod(np.floor(axes).sum(axis=0), 2), np.float32)
