"""Shapes of size one, and the rays that meet them.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward); proportions `(s,)`.
Units: a hit is the ray parameter, inf where the ray misses.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.vectors import Array, dot, normalised, pick

SHAPES = ("sphere", "box", "cylinder", "cone", "torus", "capsule")
"""A torus is a ring about its z axis, a capsule a rod along its y axis."""
SMALLEST = np.float32(1e-8)
MISS = np.float32(np.inf)
MARCH_STEPS, POLISH_STEPS = 7, 4
"""On the way to a torus: steps as long as its distance allows, then Newton's."""
EAGER = np.float32(1.3)
"""The steps are longer by this: the surface is smooth, and who steps through it comes back."""
NEAR_TORUS = np.float32(1e-3)


def cast(shape: str, origins: Array, directions: Array, proportions: Array, nearest: np.float32) -> Array:
    """Distances at which rays enter a shape of size one.

    `proportions` are the tube of a torus, as a share of the whole, and how far a capsule's axis goes each way.
    """
    match shape:
        case "sphere":
            return _cast_sphere(origins, directions, nearest)
        case "box":
            return _cast_box(origins, directions, nearest)
        case "cylinder":
            return _cast_cylinder(origins, directions, nearest)
        case "cone":
            return _cast_cone(origins, directions, nearest)
        case "torus":
            return _cast_torus(origins, directions, proportions, nearest)
        case _:
            return _cast_capsule(origins, directions, proportions, nearest)


def surface(shape: str, points: Array, proportions: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Normals, of any length, and face numbers of points on a shape."""
    match shape:
        case "box":
            return _surface_box(points)
        case "cylinder":
            return _surface_cylinder(points)
        case "cone":
            return _with_one_face(np.stack([points[0], np.maximum((1 - points[1]) / 4, np.float32(1e-4)), points[2]]))
        case "torus":
            return _with_one_face(_torus_gradient(points, proportions))
        case "capsule":
            beyond = points[1] - np.clip(points[1], -proportions, proportions)
            return _with_one_face(np.stack([points[0], beyond, points[2]]))
        case _:
            return _with_one_face(points)


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
    enter, _, real = _roots(dot(directions, directions), dot(origins, directions), dot(origins, origins) - 1)
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


def _cast_torus(origins: Array, directions: Array, tubes: Array, nearest: np.float32) -> Array:
    """Walks through the slice of a ball that holds the ring, along the rays that meet it."""
    enter, leave, real = _roots(dot(directions, directions), dot(origins, directions), dot(origins, origins) - 1)
    flat_enter, flat_leave = _slab(origins[2] / tubes, directions[2] / tubes)
    first, last = np.maximum(np.maximum(enter, flat_enter), nearest), np.minimum(leave, flat_leave)
    near = np.flatnonzero(real & (first < last))
    hits = np.full(real.shape, MISS)
    hits[near] = _walk_to_torus(pick(origins, near), pick(directions, near), tubes[near], first[near], last[near])
    return np.where(hits > nearest, hits, MISS)


def _walk_to_torus(origins: Array, directions: Array, tubes: Array, first: Array, last: Array) -> Array:
    """Where rays meet the ring between two of their points; each step is about as long as the ring is away."""
    speed, hits = np.sqrt(dot(directions, directions)), first
    for _ in range(MARCH_STEPS):
        hits = np.minimum(hits + EAGER * _torus_distance(origins + directions * hits, tubes) / speed, last)
    for _ in range(POLISH_STEPS):
        points = origins + directions * hits
        approach = -dot(_torus_gradient(points, tubes), directions)
        hits = np.minimum(hits + _torus_distance(points, tubes) / np.maximum(approach, speed * np.float32(0.1)), last)
    is_there = np.abs(_torus_distance(origins + directions * hits, tubes)) < NEAR_TORUS
    return np.where(is_there & (hits < last), hits, MISS)


def _torus_distance(points: Array, tubes: Array) -> Array:
    x, y, z = points
    from_ring = np.sqrt(x * x + y * y) - (1 - tubes)
    return np.asarray(np.sqrt(from_ring * from_ring + z * z) - tubes, np.float32)


def _torus_gradient(points: Array, tubes: Array) -> Array:
    x, y, z = points
    from_axis = np.maximum(np.sqrt(x * x + y * y), SMALLEST)
    share = 1 - (1 - tubes) / from_axis
    return normalised(np.stack([x * share, y * share, z + SMALLEST]))


def _cast_capsule(origins: Array, directions: Array, lengths: Array, nearest: np.float32) -> Array:
    """A rod of radius one along y, as far as `lengths` each way, with round ends."""
    (x, y, z), (dx, dy, dz) = origins, directions
    side, _, is_side = _roots(dx * dx + dz * dz, x * dx + z * dz, x * x + z * z - 1)
    height = y + side * dy
    end = np.where(height < 0, -lengths, lengths)
    from_end = np.stack([x, y - end, z])
    cap, _, is_cap = _roots(dot(directions, directions), dot(from_end, directions), dot(from_end, from_end) - 1)
    enter = np.where(is_side & (np.abs(height) <= lengths), side, np.where(is_side & is_cap, cap, MISS))
    return np.where(enter > nearest, enter, MISS)


def _with_one_face(normals: Array) -> tuple[Array, NDArray[np.uint8]]:
    return normals, np.zeros(normals.shape[1], np.uint8)


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
