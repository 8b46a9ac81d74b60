"""What surfaces are painted with: two colours, and patterns that say how much of the second there is at a point.

Noise comes from a hash of whole numbers, so that it is the same on every machine.

Shapes: points are `(3, s)` float32 in a surface's own coordinates; colours `(3, s)`; shares `(s,)` in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.vectors import Array, Indices, pick, sine

PATTERNS = ("plain", "checker", "bands", "panels", "patches", "noise", "stripes", "gradient")
FADE_M = 9.0
FREQUENCIES = np.array([1.0, 2.17], np.float32)[:, None, None]
OCTAVE_WEIGHTS = np.array([[0.65], [0.35]], np.float32) * np.float32(2.0**-24)
"""Of noise of 24 bits."""
PRIMES = (np.uint32(0x8DA6B343), np.uint32(0xD8163841), np.uint32(0xCB1AB31F))
FIRST_KEY, MIX = np.uint32(0x27D4EB2F), np.uint32(0x9E3779B1)

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """Two colours in [0, 1] in a pattern of cells.

    Units: `cell` metres; `phase` cells; `gloss` the strength of the highlight.
    """

    pattern: str
    first: Colour
    second: Colour
    cell: float
    phase: float
    gloss: float


@dataclass(frozen=True)
class Paints:
    """The materials of n primitives as arrays."""

    patterns: NDArray[np.uint8]
    firsts: Array
    seconds: Array
    cells: Array
    phases: Array
    gloss: Array

    def paint(self, which: Indices, points: Array) -> Array:
        """Albedo of points on the primitives that `which` names."""
        patterns, cells = self.patterns.take(which), points / self.cells.take(which) + self.phases.take(which)
        shares = np.empty(which.size, np.float32)
        for code in np.bincount(patterns).nonzero()[0].tolist():
            own = (patterns == code).nonzero()[0]
            shares[own] = _share_of_second(PATTERNS[code], pick(cells, own), bands_axis=1)
        firsts = pick(self.firsts, which)
        return np.asarray(firsts + (pick(self.seconds, which) - firsts) * shares, np.float32)


def gather_paints(materials: Sequence[Material]) -> Paints:
    """Many materials as arrays."""
    return Paints(
        patterns=np.array([PATTERNS.index(material.pattern) for material in materials], np.uint8),
        firsts=np.array([material.first for material in materials], np.float32).reshape(-1, 3).T.copy(),
        seconds=np.array([material.second for material in materials], np.float32).reshape(-1, 3).T.copy(),
        cells=np.array([material.cell for material in materials], np.float32),
        phases=np.array([material.phase for material in materials], np.float32),
        gloss=np.array([material.gloss for material in materials], np.float32),
    )


def paint_ground(material: Material, points: Array, distances: Array) -> Array:
    """Albedo of the ground; cells too small to see melt into their mean."""
    first, second = (np.array(colour, np.float32)[:, None] for colour in (material.first, material.second))
    share = _share_of_second(material.pattern, points / np.float32(material.cell) + np.float32(material.phase), bands_axis=0)
    contrast = 1 / (1 + (distances / np.float32(FADE_M)) ** 4)
    share = np.asarray(0.5 + (share - np.float32(0.5)) * contrast, np.float32)
    return np.asarray(first + (second - first) * share, np.float32)


def noise(coordinates: Array) -> Array:
    """Smooth value noise in [0, 1] over any number of coordinates; cells have a size of one. Shapes: (n, s) to (s,)."""
    places = FREQUENCIES * coordinates
    floors = np.floor(places)
    inside = places - floors
    weights = inside * inside * (3 - 2 * inside)
    corners = floors.astype(np.int32).view(np.uint32)
    keys = np.empty((len(FREQUENCIES), 2 ** len(coordinates), coordinates.shape[1]), np.uint32)
    keys[:, 0] = FIRST_KEY
    for axis, prime in zip(range(len(coordinates)), PRIMES, strict=False):
        near = corners[:, axis : axis + 1] * prime
        nearer, farther = keys[:, : 2**axis], keys[:, 2**axis : 2 ** (axis + 1)]
        np.bitwise_xor(nearer, near + prime, out=farther)
        nearer ^= near
    values = _hashed(keys)
    for axis in reversed(range(len(coordinates))):
        values, farther = values[:, : 2**axis], values[:, 2**axis :]
        farther -= values
        farther *= weights[:, axis : axis + 1]
        values += farther
    coarse, fine = OCTAVE_WEIGHTS * values[:, 0]
    return np.asarray(coarse + fine, np.float32)


def _hashed(keys: NDArray[np.uint32]) -> Array:
    """An even spread over 24 bits, in place of whole numbers."""
    keys ^= keys >> np.uint32(15)
    keys *= MIX
    keys ^= keys >> np.uint32(13)
    keys *= MIX
    keys >>= np.uint32(8)
    return keys.astype(np.float32)


def _share_of_second(pattern: str, cells: Array, *, bands_axis: int) -> Array:
    match pattern:
        case "plain":
            return np.zeros(cells.shape[1], np.float32)
        case "patches":
            x, z = np.clip(cells[0], -1e4, 1e4), np.clip(cells[2], -1e4, 1e4)
            return np.asarray(0.5 + sine(2 * x + sine(3 * z)) * sine(2 * z + sine(2 * x)) / 2, np.float32)
        case "noise":
            return _sharpened(noise(np.clip(cells, -1e5, 1e5) * np.float32(2)), 2)
        case "stripes":
            along = cells[0] + cells[1] + np.float32(0.5) * cells[2]
            return _sharpened(np.abs(2 * (along - np.floor(along)) - 1), 5)
        case "gradient":
            return np.asarray(np.clip(np.float32(0.5) + cells[1] / 3, 0, 1), np.float32)
        case _:
            axes = {"checker": cells, "bands": cells[bands_axis : bands_axis + 1], "panels": cells[0:3:2]}[pattern]
            return _odd(np.add.reduce(np.floor(axes)))


def _odd(numbers: Array) -> Array:
    """Ones for odd whole numbers, zeros for even ones; many times as fast as `np.mod`."""
    return np.asarray(numbers - 2 * np.floor(numbers / 2), np.float32)


def _sharpened(values: Array, contrast: int) -> Array:
    return np.asarray(np.clip((values - np.float32(0.5)) * np.float32(contrast) + np.float32(0.5), 0, 1), np.float32)
