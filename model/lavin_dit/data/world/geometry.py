"""Many primitives and the rays that meet them, solved at once, as a list of (primitive, ray) pairs.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward); `s` pairs.
Units: metres; a hit is the ray parameter, inf where the ray misses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world import shapes
from lavin_dit.data.world.vectors import Array, Indices, normalised, pick, put

CODES = np.arange(len(shapes.SHAPES), dtype=np.uint8)
ROD = shapes.SHAPES.index("rod")


@dataclass(frozen=True)
class Primitive:
    """One shape: where its centre is, how large it is, and how it is turned.

    `half` holds the halves of its whole extents.
    Shapes: `turn` (3, 3) takes directions of the world into its own.
    """

    shape: str
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    turn: NDArray[np.float64]


@dataclass(frozen=True)
class Primitives:
    """n primitives as arrays: `codes` number `shapes.SHAPES`, `sizes` (3, n) are the lengths that become one, `proportions` (n,)
    what they do not say of a shape, `radii` (n,) those of balls around them, `faces` (n,) the numbers of their first faces."""

    codes: NDArray[np.uint8]
    centres: Array
    turns: Array
    sizes: Array
    proportions: Array
    radii: Array
    faces: NDArray[np.uint8]

    def cast(self, parts: Indices, rows: Indices, origins: Array, directions: Array, *, nearest: float) -> Array:
        """Distances at which rays enter primitives: each that of `parts` which its row names.

        Shapes: `parts` (m,) in ascending order of their shapes; `rows` (s,), ascending; `origins` and `directions` (3, s), or (3, m, 1)
        where a part's rays share one, or (3, 1, 1) where all do; returns (s,).
        Units: multiples of each direction's own length; hits nearer than `nearest` do not count.
        """
        starts = rows.searchsorted(self.codes[parts].searchsorted(CODES)).tolist()
        solids, rods = rows[: starts[ROD]], rows[starts[ROD] :]
        own_origins = self._own_rays(parts, solids, origins, are_points=True)
        own_directions = self._own_rays(parts, solids, directions, are_points=False)
        proportions = self.proportions[parts[solids]]
        hits = np.empty(rows.size, np.float32)
        for shape, (first, last) in zip(shapes.SHAPES[:ROD], pairwise(starts), strict=True):
            if last > first:
                run = slice(first, last)
                hits[run] = shapes.cast(shape, own_origins[:, run], own_directions[:, run], proportions[run], np.float32(nearest))
        if rods.size:
            rod_origins, rod_directions = (_of_each(vectors, rods) for vectors in (origins, directions))
            hits[starts[ROD] :] = self._cast_rods(parts[rods], rod_origins, rod_directions, np.float32(nearest))
        return hits

    def surface(self, which: Indices, points: Array) -> tuple[Array, NDArray[np.uint8], Array]:
        """World normals, face numbers and own coordinates (metres from the centre) of points on the surfaces of primitives."""
        turns, sizes, scales = self.turns.take(which, axis=2), pick(self.sizes, which), pick(np.float32(1) / self.sizes, which)
        own_points = _turned(turns, points - pick(self.centres, which)) * scales
        codes, normals, faces = self.codes[which], np.empty_like(own_points), self.faces[which]
        proportions = self.proportions[which]
        for code in np.bincount(codes).nonzero()[0].tolist():
            own = (codes == code).nonzero()[0]
            own_normals, own_faces = shapes.surface(shapes.SHAPES[code], pick(own_points, own), proportions[own])
            put(normals, own, own_normals)
            faces[own] += own_faces
        return normalised(_turned(turns.swapaxes(0, 1), normals * scales)), faces, own_points * sizes

    def _own_rays(self, parts: Indices, rows: Indices, vectors: Array, *, are_points: bool) -> Array:
        """Origins (or directions) in the space where their primitive is centred, unturned and of size one."""
        is_shared = vectors.ndim == 3
        which, vectors = (parts, vectors[:, :, 0]) if is_shared else (parts[rows], vectors[:, : rows.size])
        offsets = vectors - pick(self.centres, which) if are_points else vectors
        own = _turned(self.turns.take(which, axis=2), offsets) * pick(np.float32(1) / self.sizes, which)
        return pick(own, rows) if is_shared else own

    def _cast_rods(self, which: Indices, origins: Array, directions: Array, nearest: np.float32) -> Array:
        radii = self.sizes[0]
        axes, lengths = pick(self.turns[1], which), (self.proportions * radii)[which]
        return shapes.cast_rods(origins - pick(self.centres, which), directions, axes, radii[which], lengths, nearest)


def gather(primitives: Sequence[Primitive]) -> Primitives:
    """Many primitives as arrays."""
    halves = np.array([primitive.half for primitive in primitives], np.float64).reshape(-1, 3)
    is_torus = np.array([primitive.shape == "torus" for primitive in primitives], np.bool_)
    centres = np.array([primitive.centre for primitive in primitives], np.float64).reshape(-1, 3)
    turns = np.array([primitive.turn for primitive in primitives], np.float64).reshape(-1, 3, 3)
    return Primitives(
        codes=np.array([shapes.SHAPES.index(primitive.shape) for primitive in primitives], np.uint8),
        centres=centres.T.astype(np.float32, order="C"),
        turns=turns.transpose(1, 2, 0).astype(np.float32, order="C"),
        sizes=np.where(is_torus[:, None], halves[:, :1], halves).T.astype(np.float32, order="C"),
        proportions=np.asarray(np.where(is_torus, halves[:, 2] / halves[:, 0], 0), np.float32),
        radii=np.array([_bounding_radius(primitive) for primitive in primitives], np.float32),
        faces=np.zeros(len(primitives), np.uint8),
    )


def gather_rods(
    centres: NDArray[np.float64],
    turns: NDArray[np.float64],
    radii: NDArray[np.float64],
    lengths: NDArray[np.float64],
    faces: NDArray[np.uint8],
) -> Primitives:
    """Rods with round ends as arrays: their axes, the second rows of their `turns`, go as far as `lengths` each way.

    Shapes: `centres` (3, n), `turns` (3, 3, n), the others (n,).
    """
    return Primitives(
        codes=np.full(radii.size, ROD, np.uint8),
        centres=centres.astype(np.float32),
        turns=turns.astype(np.float32),
        sizes=np.array([radii, radii, radii], np.float32),
        proportions=(lengths / radii).astype(np.float32),
        radii=(lengths + radii).astype(np.float32),
        faces=faces,
    )


def join(groups: Sequence[Primitives]) -> Primitives:
    """The primitives of several groups, one after the other."""
    names = Primitives.__dataclass_fields__
    return Primitives(*(np.concatenate([getattr(group, name) for group in groups], axis=-1) for name in names))


def _bounding_radius(primitive: Primitive) -> float:
    x, y, z = primitive.half
    across = max(x, z)
    match primitive.shape:
        case "sphere":
            return max(across, y)
        case "box":
            return math.hypot(x, y, z)
        case "torus":
            return max(x, y)
        case _:
            return math.hypot(across, y)


def _of_each(vectors: Array, rows: Indices) -> Array:
    """The vectors of the last rays, whose rows are given; one that all share as it is."""
    if vectors.ndim == 2:
        return vectors[:, -rows.size :]
    return vectors[:, :, 0] if vectors.shape[1] == 1 else pick(vectors[:, :, 0], rows)


def _turned(turns: Array, vectors: Array) -> Array:
    x, y, z = vectors
    return np.asarray(turns[:, 0] * x + turns[:, 1] * y + turns[:, 2] * z, np.float32)
