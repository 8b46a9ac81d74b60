"""Rolling ground: waves of a height field, and the rays that meet it.

The waves are parabolas, which look like sines and are the same on every machine. They are too gentle to throw shadows: no slope of
the ground is as steep as the lowest light.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward).
Units: metres.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.shapes import MISS
from lavin_dit.data.world.vectors import Array, normalised, pick

FARTHEST_M = 120.0
"""Beyond it the ground is level."""
MARCH_STEPS, POLISH_STEPS = 8, 4
GENTLEST = np.float32(0.25)
"""The least descent that Newton's step assumes, of a ray's own: where the ground falls as fast as the ray, it would be far too long."""
BEYOND_M = np.float32(1e6)
"""In place of infinity, of which a level ray would make no number."""
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

    @cached_property
    def top(self) -> float:
        """No point of it is higher, or lower than the negative of this."""
        return sum(wave.height for wave in self.waves)

    @cached_property
    def steepest(self) -> float:
        """No slope of it is steeper."""
        return sum(8 * wave.height * math.hypot(wave.x, wave.z) for wave in self.waves)

    @cached_property
    def columns(self) -> Array:
        """Its waves' greatest slopes against their places, directions and phases. Shapes: (4, waves, 1)."""
        waves = [(8 * wave.height, wave.x, wave.z, wave.phase) for wave in self.waves]
        return np.array(waves, np.float32).T[:, :, None]

    def height(self, x: float, z: float) -> float:
        """Of one place."""
        height = 0.0
        for wave in self.waves:
            waves = wave.x * x + wave.z * z + wave.phase
            place = waves - math.floor(waves + 0.5)
            height += wave.height * (place * (8 - 16 * abs(place)))
        return height

    def lowest(self, x: float, z: float, radius: float) -> float:
        """A height below every place of a disc: what stands there at this height leaves no gap."""
        return min(self.height(x + radius * dx, z + radius * dz) for dx, dz in AROUND) - 0.15 * radius * self.steepest

    def cast(self, eye: Array, directions: Array, limits: Array) -> Array:
        """Distances at which rays from above meet the ground, inf for those that go up, or end at their limit above all waves.

        Shapes: `eye` (3, 1); `limits` (s,); returns (s,).
        """
        hits, downwards = np.full(directions.shape[1], MISS, np.float32), directions[1]
        is_low = np.minimum(limits, BEYOND_M) * downwards < np.float32(self.top) - eye[1]
        down = (is_low & (downwards < -1e-5)).nonzero()[0]
        for start in range(0, down.size, CHUNK):
            rays = down[start : start + CHUNK]
            hits[rays] = self._follow(eye, pick(directions, rays))
        return hits

    def normals(self, points: Array, distances: Array) -> Array:
        """Unit normals of points on the ground."""
        lifts, x, z, phases = self.columns
        slopes = lifts * (1 - 4 * np.abs(_place(x * points[0] + z * points[2] + phases)))
        slopes *= distances < np.float32(FARTHEST_M)
        return normalised(np.array([-np.add.reduce(x * slopes), np.ones_like(distances), -np.add.reduce(z * slopes)]))

    def _follow(self, eye: Array, directions: Array) -> Array:
        """Closes in on where rays go below the waves, within the layer that holds them."""
        paths, (x, y, z) = _Paths(self, eye, directions), directions
        near, far = ((np.float32(height) - eye[1]) / y for height in (self.top, -self.top))
        level = -eye[1] / y
        # Steeper rays than the ground is anywhere meet it once.
        rolling = ((y * y < np.float32(self.steepest**2) * (x * x + z * z)) | (far > np.float32(FARTHEST_M))).nonzero()[0]
        hits = level.copy()
        near[rolling], far[rolling], hits[rolling], is_met = _Paths(self, eye, pick(directions, rolling)).march(near[rolling], far[rolling])
        for _ in range(POLISH_STEPS):
            hits = np.minimum(np.maximum(paths.approach(hits), near), far)
        missed = rolling[~is_met]
        hits[missed] = level[missed]
        return np.asarray(hits, np.float32)


class _Paths:
    """Rays over waves, and how fast they descend and cross them."""

    def __init__(self, terrain: Terrain, eye: Array, directions: Array) -> None:
        self.lifts, x, z, phases = terrain.columns
        self.height, self.descents = eye[1], -directions[1]
        self.starts, self.rates = x * eye[0] + z * eye[2] + phases, x * directions[0] + z * directions[2]

    def gaps(self, distances: Array) -> Array:
        """How far they are above the ground. Shapes: `distances` (n, s)."""
        places = _place(self.starts[:, None] + distances * self.rates[:, None])
        lifts = self.lifts[:, None]
        places *= lifts - 2 * lifts * np.abs(places)
        return np.asarray(self.height - distances * self.descents - np.add.reduce(places), np.float32)

    def approach(self, distances: Array) -> Array:
        """A step of Newton's to where they meet it."""
        places = _place(self.starts + distances * self.rates)
        bends = 2 * self.lifts * np.abs(places)
        lifts = self.lifts - bends
        gaps = self.height - distances * self.descents - np.add.reduce(places * lifts)
        descents = self.descents + np.add.reduce(self.rates * (lifts - bends))
        return np.asarray(distances + gaps / np.maximum(descents, GENTLEST * self.descents), np.float32)

    def march(self, first: Array, last: Array) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """Between which steps of a walk they first go below it, and where about, and whether they do."""
        stride = np.asarray((np.minimum(last, np.float32(FARTHEST_M)) - first) / MARCH_STEPS, np.float32)
        gaps = self.gaps(first + stride * STEPS)
        is_above, passed = np.ones(first.size, np.bool_), np.zeros(first.size, np.uint8)
        for row in gaps[1:] > 0:
            is_above &= row
            passed += is_above
        is_met = ~is_above & (first < np.float32(FARTHEST_M))
        passed -= is_above
        places = passed.astype(np.intp) * first.size + np.arange(first.size)
        above, below = gaps.ravel().take(places), gaps.ravel().take(places + first.size)
        near = np.asarray(first + stride * passed.astype(np.float32), np.float32)
        return near, near + stride, near + stride * (above / np.maximum(above - below, np.float32(1e-9))), is_met


def _place(waves: Array) -> Array:
    """Within a wave, from -1/2 to 1/2."""
    return np.asarray(waves - np.rint(waves), np.float32)
