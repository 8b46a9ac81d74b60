"""Solids and the rays that meet them, solved in the space where each solid is of unit size.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward); `s` rays.
Units: metres; a hit is the ray parameter, inf where the ray misses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BOUNDING_RADIUS = np.float32(3.0) ** np.float32(0.5)
SMALLEST = np.float32(1e-8)
MISS = np.float32(np.inf)


@dataclass(frozen=True)
class Solid:
    """A primitive that stands on the ground: where, how large, and turned by how much about the vertical.

    Units: `half` holds half of the width, height and depth in metres; `yaw` radians.
    """

    shape: str
    x: float
    z: float
    half: tuple[float, float, float]
    yaw: float

    def to_unit(self, vectors: Array, *, are_points: bool) -> Array:
        """Moves points (or directions) into the space where the solid is centred, unturned and of half-size 1."""
        x, y, z = vectors
        if are_points:
            x, y, z = x - np.float32(self.x), y - np.float32(self.half[1]), z - np.float32(self.z)
        cosine, sine = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        scale = np.float32(1.0) / np.array(self.half, np.float32)
        return np.stack([(cosine * x - sine * z) * scale[0], y * scale[1], (sine * x + cosine * z) * scale[2]])

    def to_world_normals(self, normals: Array) -> Array:
        """Turns normals of the unit shape into unit normals of the world."""
        scale = np.float32(1.0) / np.array(self.half, np.float32)
        x, y, z = normals[0] * scale[0], normals[1] * scale[1], normals[2] * scale[2]
        cosine, sine = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        turned = np.stack([cosine * x + sine * z, y, cosine * z - sine * x])
        return normalised(turned)


def cast(solid: Solid, origins: Array, directions: Array, *, nearest: float) -> Array:
    """Distances at which rays enter a solid.

    Shapes: `origins` and `directions` are (3, s), or (3, 1) where all rays share one; returns (s,).
    Units: multiples of each direction's own length; hits nearer than `nearest` do not count.
    """
    origins = solid.to_unit(origins, are_points=True)
    directions = solid.to_unit(directions, are_points=False)
    candidates = np.flatnonzero(_may_hit(origins, directions))
    hits = np.full(max(origins.shape[1], directions.shape[1]), MISS, np.float32)
    if candidates.size:
        found = INTERSECTIONS[solid.shape](_pick(origins, candidates), _pick(directions, candidates), np.float32(nearest))
        hits[candidates] = found
    return hits


def surface(solid: Solid, points: Array) -> tuple[Array, NDArray[np.uint8], Array]:
    """World normals, face numbers and local coordinates (metres from the solid's centre) of points on its surface."""
    unit = solid.to_unit(points, are_points=True)
    normals, faces = SURFACES[solid.shape](unit)
    return solid.to_world_normals(normals), faces, unit * np.array(solid.half, np.float32)[:, None]


def normalised(vectors: Array) -> Array:
    """Vectors at unit length."""
    return np.asarray(vectors / np.sqrt(_dot(vectors, vectors)), np.float32)


def _pick(vectors: Array, rays: NDArray[np.intp]) -> Array:
    return vectors if vectors.shape[1] == 1 else vectors[:, rays]


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], np.float32)


def _may_hit(origins: Array, directions: Array) -> NDArray[np.bool_]:
    ahead = _dot(origins, directions)
    distance = _dot(origins, origins) - BOUNDING_RADIUS**2
    return (ahead * ahead >= _dot(directions, directions) * distance) & ((ahead < 0) | (distance < 0))


def _away_from_zero(values: Array) -> Array:
    return np.where(np.abs(values) < SMALLEST, SMALLEST, values)


def _roots(a: Array, b: Array, c: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Both solutions of a t² + 2 b t + c = 0 in ascending order, and whether they are real."""
    a = _away_from_zero(a)
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    first, second = (-b - root) / a, (-b + root) / a
    return np.minimum(first, second), np.maximum(first, second), discriminant >= 0


def _slab(origin: Array, direction: Array) -> tuple[Array, Array]:
    inverse = 1 / _away_from_zero(direction)
    first, second = (-1 - origin) * inverse, (1 - origin) * inverse
    return np.minimum(first, second), np.maximum(first, second)


def _cast_sphere(origins: Array, directions: Array, nearest: np.float32) -> Array:
    enter, _, real = _roots(_dot(directions, directions), _dot(origins, directions), _dot(origins, origins) - 1)
    return np.where(real & (enter > nearest), enter, MISS)


def _cast_box(origins: Array, directions: Array, nearest: np.float32) -> Array:
    slabs = [_slab(origins[axis], directions[axis]) for axis in range(3)]
    enter = np.maximum(np.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    leave = np.minimum(np.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return np.where((enter < leave) & (enter > nearest), enter, MISS)


def _cast_cylinder(origins: Array, directions: Array, nearest: np.float32) -> Array:
    (x, y, z), (dx, dy, dz) = origins, directions
    side_enter, side_leave, real = _roots(dx * dx + dz * dz, x * dx + z * dz, x * x + z * z - 1)
    cap_enter, cap_leave = _slab(y, dy)
    enter, leave = np.maximum(side_enter, cap_enter), np.minimum(side_leave, cap_leave)
    return np.where(real & (enter < leave) & (enter > nearest), enter, MISS)


def _cast_cone(origins: Array, directions: Array, nearest: np.float32) -> Array:
    """The side alone: the base lies on the ground, where neither the camera nor the light can see it."""
    (x, y, z), (dx, dy, dz) = origins, directions
    depth, slope = 1 - y, np.float32(0.25)
    a = dx * dx + dz * dz - slope * dy * dy
    b = x * dx + z * dz + slope * depth * dy
    first, second, real = _roots(a, b, x * x + z * z - slope * depth * depth)
    is_first = real & (first > nearest) & (np.abs(y + first * dy) <= 1)
    is_second = real & (second > nearest) & (np.abs(y + second * dy) <= 1)
    return np.where(is_first, first, np.where(is_second, second, MISS))


def _surface_sphere(points: Array) -> tuple[Array, NDArray[np.uint8]]:
    return points, np.zeros(points.shape[1], np.uint8)


def _surface_box(points: Array) -> tuple[Array, NDArray[np.uint8]]:
    axis = np.abs(points).argmax(axis=0)
    rays = np.arange(points.shape[1])
    is_positive = points[axis, rays] > 0
    normals = np.zeros_like(points)
    normals[axis, rays] = np.where(is_positive, np.float32(1), np.float32(-1))
    return normals, (2 * axis + is_positive).astype(np.uint8)


def _surface_cylinder(points: Array) -> tuple[Array, NDArray[np.uint8]]:
    x, y, z = points
    is_cap = y * y > x * x + z * z
    zero = np.zeros_like(y)
    return np.stack([np.where(is_cap, zero, x), np.where(is_cap, np.sign(y), zero), np.where(is_cap, zero, z)]), is_cap.astype(np.uint8)


def _surface_cone(points: Array) -> tuple[Array, NDArray[np.uint8]]:
    x, y, z = points
    return np.stack([x, np.maximum((1 - y) / 4, np.float32(1e-4)), z]), np.zeros(points.shape[1], np.uint8)


INTERSECTIONS: dict[str, Callable[[Array, Array, np.float32], Array]] = {
    "sphere": _cast_sphere,
    "box": _cast_box,
    "cylinder": _cast_cylinder,
    "cone": _cast_cone,
}
SURFACES: dict[str, Callable[[Array], tuple[Array, NDArray[np.uint8]]]] = {
    "sphere": _surface_sphere,
    "box": _surface_box,
    "cylinder": _surface_cylinder,
    "cone": _surface_cone,
}
