"""Shapes of size one, and the rays that meet them.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward); proportions `(s,)`.
Units: a hit is the ray parameter, inf where the ray misses.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.vectors import Array, dot, normalised

SHAPES = ("sphere", "box", "cylinder", "cone", "torus", "rod")
"""A torus is a ring about its z axis, a rod, with round ends, lies along its y axis."""
SMALLEST = np.float32(1e-8)
MISS = np.float32(np.inf)
MARCH_STEPS, POLISH_STEPS = 7, 4
"""On the way to a torus: steps as long as its distance allows, then Newton's."""
EAGER = np.float32(1.3)
"""The steps are longer by this: the surface is smooth, and who steps through it comes back."""
NEAR_TORUS = np.float32(1e-3)


def cast(shape: str, origins: Array, directions: Array, proportions: Array, nearest: np.float32) -> Array:
    """Distances at which rays enter a shape of size one.

    `proportions` are the tube of a torus, as a share of the whole. Rods are cast by `cast_rods`.
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
        case _:
            return _cast_torus(origins, directions, proportions, nearest)


def surface(shape: str, points: Array, proportions: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Normals, of any length, and face numbers of points on a shape."""
    match shape:
        case "box":
            return _surface_box(points)
        case "cylinder":
            return _surface_cylinder(points)
        case "cone":
            return _with_one_face(np.array([points[0], np.maximum((1 - points[1]) / 4, np.float32(1e-4)), points[2]]))
        case "torus":
            return _with_one_face(_torus_gradient(points, proportions))
        case "rod":
            beyond = points[1] - np.clip(points[1], -proportions, proportions)
            return _with_one_face(np.array([points[0], beyond, points[2]]))
        case _:
            return _with_one_face(points)


def _away_from_zero(values: Array) -> Array:
    return np.where(np.abs(values) < SMALLEST, SMALLEST, values)


def _roots(a: Array, b: Array, c: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Both solutions of a t² + 2 b t + c = 0, in ascending order where a > 0, and whether they are real."""
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    return (-b - root) / a, (root - b) / a, discriminant >= 0


def _slab(origins: Array, directions: Array) -> tuple[Array, Array]:
    """Where rays pass from -1 to 1, along each of the axes given."""
    inverse = 1 / _away_from_zero(directions)
    first, second = (-1 - origins) * inverse, (1 - origins) * inverse
    return np.minimum(first, second), np.maximum(first, second)


def _only_where(is_hit: NDArray[np.bool_], hits: Array) -> Array:
    """Hits, and `MISS` elsewhere; several times as fast as `np.where`."""
    hits[~is_hit] = MISS
    return hits


def _cast_sphere(origins: Array, directions: Array, nearest: np.float32) -> Array:
    enter, _, is_real = _roots(dot(directions, directions), dot(origins, directions), dot(origins, origins) - 1)
    return _only_where(is_real & (enter > nearest), enter)


def _cast_box(origins: Array, directions: Array, nearest: np.float32) -> Array:
    enters, leaves = _slab(origins, directions)
    enter = np.maximum.reduce(enters)
    return _only_where((enter < np.minimum.reduce(leaves)) & (enter > nearest), enter)


def _cast_cylinder(origins: Array, directions: Array, nearest: np.float32) -> Array:
    (x, y, z), (dx, dy, dz) = origins, directions
    across = np.maximum(dx * dx + dz * dz, SMALLEST)
    side_enter, side_leave, is_real = _roots(across, x * dx + z * dz, x * x + z * z - 1)
    cap_enter, cap_leave = _slab(y, dy)
    enter, leave = np.maximum(side_enter, cap_enter), np.minimum(side_leave, cap_leave)
    return _only_where(is_real & (enter < leave) & (enter > nearest), enter)


def _cast_cone(origins: Array, directions: Array, nearest: np.float32) -> Array:
    """The side alone: the base lies on the ground, where neither the camera nor the light can see it."""
    (x, y, z), (dx, dy, dz) = origins, directions
    depth, slope = 1 - y, np.float32(0.25)
    a = _away_from_zero(dx * dx + dz * dz - slope * dy * dy)
    b = x * dx + z * dz + slope * depth * dy
    one, other, is_real = _roots(a, b, x * x + z * z - slope * depth * depth)
    first, second = np.minimum(one, other), np.maximum(one, other)
    for hits in (first, second):
        hits[~(is_real & (hits > nearest) & (np.abs(y + hits * dy) <= 1))] = MISS
    return np.minimum(first, second)


def _cast_torus(origins: Array, directions: Array, tubes: Array, nearest: np.float32) -> Array:
    """Walks through the slice of a ball that holds the ring, along the rays that meet it."""
    speed = np.sqrt(dot(directions, directions))
    along, out_of_plane = dot(origins, directions) / speed, directions[2] / speed
    closest, height = dot(origins, origins) - along * along, origins[2] - along * out_of_plane
    # From here on distances are of size one, from where a ray is closest to the centre.
    flat_enter, flat_leave = _slab(height / tubes, out_of_plane / tubes)
    half = np.sqrt(np.maximum(1 - closest, 0))
    first, last = np.maximum(np.maximum(-half, flat_enter), nearest * speed + along), np.minimum(half, flat_leave)
    near, hits = (first < last).nonzero()[0], np.full(along.size, MISS)
    rays = (closest, height, out_of_plane, tubes, first, last)
    walked = _walk_to_torus(*(np.asarray(values.take(near), np.float32) for values in rays))
    hits[near] = (walked - along.take(near)) / speed.take(near)
    return _only_where(hits > nearest, hits)


def _walk_to_torus(closest: Array, height: Array, out_of_plane: Array, tubes: Array, first: Array, last: Array) -> Array:
    """Where rays meet the ring between two of their points; each step is about as long as the ring is away.

    `closest` is the square of the ray's distance from the centre, at `height` over the ring's plane; it leaves the plane `out_of_plane`
    for each of its own.
    """
    rings = 1 - tubes

    def measure(places: Array) -> tuple[Array, Array, Array]:
        """Heights, distances from the ring's axis, and from the ring within the tube."""
        heights = height + out_of_plane * places
        squares = heights * heights
        # Rounding may take it below zero.
        from_axis = np.sqrt(np.abs(closest + places * places - squares))
        beyond = from_axis - rings
        return heights, from_axis, np.sqrt(beyond * beyond + squares)

    places = first
    for _ in range(MARCH_STEPS):
        places = np.minimum(places + EAGER * (measure(places)[2] - tubes), last)
    for _ in range(POLISH_STEPS):
        heights, from_axis, distances = measure(places)
        approach = (places - out_of_plane * heights) * rings / np.maximum(from_axis, SMALLEST) - places
        places = np.minimum(places + (distances - tubes) * distances / np.maximum(approach, distances * np.float32(0.1)), last)
    is_there = np.abs(measure(places)[2] - tubes) < NEAR_TORUS
    return _only_where(is_there & (places < last), places)


def _torus_gradient(points: Array, tubes: Array) -> Array:
    x, y, z = points
    from_axis = np.maximum(np.sqrt(x * x + y * y), SMALLEST)
    share = 1 - (1 - tubes) / from_axis
    return normalised(np.array([x * share, y * share, z + SMALLEST]))


def cast_rods(offsets: Array, directions: Array, axes: Array, radii: Array, lengths: Array, nearest: np.float32) -> Array:
    """Distances at which rays enter rods with round ends, of any size and turned anyhow.

    `offsets` are the rays' origins from the rods' centres, `axes` unit directions along which rods go as far as `lengths` each way.
    """
    along, tilt, approach = dot(offsets, axes), dot(directions, axes), dot(offsets, directions)
    speed, apart = dot(directions, directions), dot(offsets, offsets) - radii * radii
    across = np.maximum(speed - tilt * tilt, SMALLEST)
    side, _, is_side = _roots(across, approach - along * tilt, apart - along * along)
    height = along + side * tilt
    end = np.asarray(np.copysign(lengths, height), np.float32)
    cap, _, is_cap = _roots(speed, approach - end * tilt, apart + end * (end - 2 * along))
    is_beside = np.abs(height) <= lengths
    np.copyto(cap, side, where=is_beside)
    return _only_where(is_side & (is_beside | is_cap) & (cap > nearest), cap)


def _with_one_face(normals: Array) -> tuple[Array, NDArray[np.uint8]]:
    return normals, np.zeros(normals.shape[1], np.uint8)


def _surface_box(points: Array) -> tuple[Array, NDArray[np.uint8]]:
    x, y, z = np.abs(points)
    is_side = x >= np.maximum(y, z)
    is_top = ~is_side & (y >= z)
    is_front = ~(is_side | is_top)
    normals = np.copysign(np.array([is_side, is_top, is_front], np.float32), points)
    axis = is_top + 2 * is_front.view(np.uint8)
    return normals, 2 * axis + (normals > 0).any(axis=0)


def _surface_cylinder(points: Array) -> tuple[Array, NDArray[np.uint8]]:
    x, y, z = points
    is_cap = y * y > x * x + z * z
    is_side = ~is_cap
    return np.array([x * is_side, np.sign(y) * is_cap, z * is_side]), is_cap.view(np.uint8)
