"""The camera: the rays of its pixels, and where it sees a point.

Shapes: vectors are `(3, s)`, rows x (right), y (up), z (forward); `s` samples.
Units: metres, radians, pixels (centres at integers + 0.5, rows downwards).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.vectors import Array

NEAREST_SEEN_M = 0.05


@dataclass(frozen=True)
class Camera:
    """A level camera that looks along z, tilted down by `pitch`; above the origin, unless it has moved.

    Units: metres, radians; `field_of_view` is the whole angle, equal across and down.
    """

    height: float
    pitch: float
    field_of_view: float
    x: float = 0.0
    z: float = 0.0

    @property
    def eye(self) -> Array:
        """Where it is, as (3, 1)."""
        return np.array([[self.x], [self.height], [self.z]], np.float32)

    @property
    def reach(self) -> float:
        """How far it sees to each side, at a distance of one."""
        return math.tan(self.field_of_view / 2)

    def rays(self, columns: NDArray[np.float64], rows: NDArray[np.float64], resolution: int) -> Array:
        """Directions through places of the picture; their length along the optical axis is 1, so that a hit's parameter is its depth."""
        return np.array([self.across(columns, resolution), *self.upright(rows, resolution)])

    def across(self, columns: NDArray[np.float64], resolution: int) -> Array:
        """How far to the right rays through columns of the picture go."""
        return ((2 * columns / resolution - 1) * self.reach).astype(np.float32)

    def upright(self, rows: NDArray[np.float64], resolution: int) -> tuple[Array, Array]:
        """How far up, and forwards, rays through rows of the picture go."""
        up = (1 - 2 * rows / resolution) * self.reach
        cosine, sine = math.cos(self.pitch), math.sin(self.pitch)
        return (up * cosine - sine).astype(np.float32), (cosine + up * sine).astype(np.float32)

    def turn(self, vectors: NDArray[np.floating]) -> NDArray[np.floating]:
        """Directions of the world in camera space: x right, y up, z to the viewer."""
        cosine, sine = vectors.dtype.type(math.cos(self.pitch)), vectors.dtype.type(math.sin(self.pitch))
        x, y, z = vectors
        return np.array([x, cosine * y + sine * z, sine * y - cosine * z])

    def project(self, points: NDArray[np.float64], resolution: int, *, are_directions: bool = False) -> NDArray[np.float64]:
        """Where points, or directions to what is infinitely far, are in the picture, and their depth.

        Shapes: returns (3, s): columns, rows, depths along the optical axis.
        """
        eye = np.zeros((3, 1)) if are_directions else np.array([[self.x], [self.height], [self.z]])
        right, up, behind = self.turn(points - eye)
        depth = np.maximum(-behind, NEAREST_SEEN_M)
        columns = (right / depth / self.reach + 1) * resolution / 2
        rows = (1 - up / depth / self.reach) * resolution / 2
        return np.array([columns, rows, -behind])
