"""Rolling ground: waves of a height field, and the rays that meet it.

The waves are parabolas, which look like sines and are the same on every machine. They are too gentle to throw shadows: no slope of
the ground is as steep as the lowest light.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward).
Units: metres.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lavin_dit.data.world.shapes import MISS
from lavin_dit.data.world.vectors import Array, normalised

FARTHEST_M = 120.0
"""Beyond it the ground is level."""
MARCH_STEPS, POLISH_STEPS = 8, 4
STEPS = np.arange(MARCH_STEPS + 1, dtype=np.float32)[:, None]
CHUNK = 4096
"""Rays that are followed together: their steps fit the processor's cache."""
AROUND = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


@dataclass(frozen=True)
class Wave:
    """Units: `height` metres above and below the mean; `x`, `z` waves a metre; `phase` waves."""

    height: float
    x: float
    z: float
    phase: float


@dataclass(frozen=True)
class Terrain:
    """A sum of waves about the height of zero."""

    waves: tuple[Wave, ...]

    @property
    def top(self) -> float:
        """No point of it is higher, or lower than the negative of this."""
        return sum(wave.height for wave in self.waves)

    @property
    def steepest(self) -> float:
        """No slope of it is steeper."""
        return sum(8 * wave.height * math.hypot(wave.x, wave.z) for wave in self.waves)

    def height(self, x: float, z: float) -> float:
        """Of one place."""
        return sum(wave.height * _swing(wave.x * x + wave.z * z + wave.phase) for wave in self.waves)

    def lowest(self, x: float, z: float, radius: float) -> float:
        """A height below every place of a disc: what stands there at this height leaves no gap."""
        return min(self.height(x + radius * dx, z + radius * dz) for dx, dz in AROUND) - 0.15 * radius * self.steepest

    def cast(self, eye: Array, directions: Array, limits: Array) -> Array:
        """Distances at which rays from above meet the ground, inf for those that go up, or end at their limit above all waves.

        Shapes: `eye` (3, 1); `limits` (s,); returns (s,).
        """
        hits = np.full(directions.shape[1], MISS, np.float32)
        down = np.flatnonzero(directions[1] < -1e-5)
        down = down[limits[down] * directions[1, down] < np.float32(self.top) - eye[1]]
        for start in range(0, down.size, CHUNK):
            rays = down[start : start + CHUNK]
            hits[rays] = self._follow(eye, directions[:, rays])
        return hits

    def normals(self, points: Array, distances: Array) -> Array:
        """Unit normals of points on the ground."""
        x_slope, z_slope = np.zeros_like(points[0]), np.zeros_like(points[0])
        for wave in self.waves:
            slope = np.float32(8 * wave.height) * (1 - 4 * np.abs(_place(_along(wave, points))))
            x_slope -= np.float32(wave.x) * slope
            z_slope -= np.float32(wave.z) * slope
        is_near = distances < np.float32(FARTHEST_M)
        return normalised(np.stack([x_slope * is_near, np.ones_like(x_slope), z_slope * is_near]))

    def _follow(self, eye: Array, directions: Array) -> Array:
        """Walks through the layer that holds the waves, then closes in on where the ray goes below them."""
        first, last = ((np.float32(height) - eye[1]) / directions[1] for height in (self.top, -self.top))
        stride = (np.minimum(last, np.float32(FARTHEST_M)) - first) / MARCH_STEPS
        gap = self._gap(eye, directions)
        gaps = gap(first + stride * STEPS)
        reached = np.maximum((gaps <= 0).argmax(axis=0), 1)
        near, far = first + stride * (reached - 1).astype(np.float32), first + stride * reached.astype(np.float32)
        places = reached * reached.size + np.arange(reached.size)
        near_gap, far_gap = gaps.ravel().take(places - reached.size), gaps.ravel().take(places)
        was_below = was_above = np.zeros(reached.size, np.bool_)
        for _ in range(POLISH_STEPS):
            middle = near + (far - near) * near_gap / np.maximum(near_gap - far_gap, np.float32(1e-9))
            middle_gap = gap(middle)
            is_below = middle_gap <= 0
            # An end that stays twice loses half of its weight, or the other would creep.
            far_gap, near_gap = (
                np.where(is_below, middle_gap, np.where(was_above, far_gap / 2, far_gap)),
                np.where(is_below, np.where(was_below, near_gap / 2, near_gap), middle_gap),
            )
            far, near = np.where(is_below, middle, far), np.where(is_below, near, middle)
            was_below, was_above = is_below, ~is_below
        is_met = (first < FARTHEST_M) & (gaps[-1] <= 0)
        return np.asarray(np.where(is_met, middle, -eye[1] / directions[1]), np.float32)

    def _gap(self, eye: Array, directions: Array) -> Callable[[Array], Array]:
        """How far rays are above the ground at given distances."""
        rates = [np.float32(wave.x) * directions[0] + np.float32(wave.z) * directions[2] for wave in self.waves]
        starts = [_along(wave, eye) for wave in self.waves]

        def gap(distances: Array) -> Array:
            heights = eye[1] + distances * directions[1]
            for wave, start, rate in zip(self.waves, starts, rates, strict=True):
                place = _place(start + distances * rate)
                heights -= place * (np.float32(8 * wave.height) - np.float32(16 * wave.height) * np.abs(place))
            return np.asarray(heights, np.float32)

        return gap


def _along(wave: Wave, points: Array) -> Array:
    return np.asarray(np.float32(wave.x) * points[0] + np.float32(wave.z) * points[2] + np.float32(wave.phase), np.float32)


def _place(waves: Array) -> Array:
    """Within a wave, from -1/2 to 1/2."""
    return np.asarray(waves - np.rint(waves), np.float32)


def _swing(waves: float) -> float:
    place = waves - math.floor(waves + 0.5)
    return place * (8 - 16 * abs(place))
