"""Many primitives and the rays that meet them, solved at once, as a list of (primitive, ray) pairs.

Shapes: points and directions are `(3, s)` float32, rows x (right), y (up), z (forward); `s` pairs.
Units: metres; a hit is the ray parameter, inf where the ray misses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world import shapes
from lavin_dit.data.world.vectors import Array, Indices, normalised, pick, put


@dataclass(frozen=True)
class Primitive:
    """One shape: where its centre is, how large it is, and how it is turned.

    `half` holds the halves of its whole extents; `face` is the number of its first face, among all of a thing of many primitives.
    Shapes: `turn` (3, 3) takes directions of the world into its own.
    """

    shape: str
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    turn: NDArray[np.float64]
    face: int = 0


@dataclass(frozen=True)
class Primitives:
    """n primitives as arrays: `codes` number `shapes.SHAPES`, `sizes` (3, n) are the lengths that become one, `proportions` (n,)
    what they do not say of a shape."""

    codes: NDArray[np.uint8]
    centres: Array
    turns: Array
    sizes: Array
    proportions: Array
    radii: Array
    faces: NDArray[np.uint8]

    def cast(self, parts: Indices, counts: Indices, origins: Array, directions: Array, *, nearest: float) -> Array:
        """Distances at which rays enter primitives: the first of `counts` rays the first of `parts`, and so on.

        Shapes: `parts` in ascending order of their shapes, and `counts`, (m,); `origins` and `directions` (3, s), or (3, m, 1) where a
        part's rays share one, or (3, 1, 1) where all do; returns (s,).
        Units: multiples of each direction's own length; hits nearer than `nearest` do not count.
        """
        own_origins = self._own_rays(parts, counts, origins, are_points=True)
        own_directions = self._own_rays(parts, counts, directions, are_points=False)
        proportions, codes = np.repeat(self.proportions[parts], counts), self.codes[parts]
        bounds = np.concatenate([[0], np.cumsum(counts)])
        hits = np.empty(bounds[-1], np.float32)
        for code in np.flatnonzero(np.bincount(codes)):
            first, last = np.searchsorted(codes, [code, code + 1])
            run = slice(bounds[first], bounds[last])
            hits[run] = shapes.cast(shapes.SHAPES[code], own_origins[:, run], own_directions[:, run], proportions[run], np.float32(nearest))
        return hits

    def surface(self, which: Indices, points: Array) -> tuple[Array, NDArray[np.uint8], Array]:
        """World normals, face numbers and own coordinates (metres from the centre) of points on the surfaces of primitives."""
        own_points = _turned(self.turns.take(which, axis=2), points - pick(self.centres, which)) * pick(np.float32(1) / self.sizes, which)
        codes, normals, faces = self.codes[which], np.empty_like(own_points), np.empty(which.size, np.uint8)
        for code in np.flatnonzero(np.bincount(codes)):
            own = np.flatnonzero(codes == code)
            own_normals, faces[own] = shapes.surface(shapes.SHAPES[code], pick(own_points, own), self.proportions[which[own]])
            put(normals, own, own_normals)
        normals *= pick(np.float32(1) / self.sizes, which)
        back = self.turns.transpose(1, 0, 2).take(which, axis=2)
        return normalised(_turned(back, normals)), faces + self.faces[which], own_points * pick(self.sizes, which)

    def _own_rays(self, parts: Indices, counts: Indices, vectors: Array, *, are_points: bool) -> Array:
        """Origins (or directions) in the space where their primitive is centred, unturned and of size one."""
        centres, turns, scales = pick(self.centres, parts), self.turns.take(parts, axis=2), pick(np.float32(1) / self.sizes, parts)
        is_shared = vectors.ndim == 3
        if is_shared:
            vectors = vectors[:, :, 0]
        else:
            centres, turns, scales = (np.repeat(frame, counts, axis=-1) for frame in (centres, turns, scales))
        own = _turned(turns, vectors - centres if are_points else vectors) * scales
        return np.repeat(own, counts, axis=1) if is_shared else own


def gather(primitives: Sequence[Primitive]) -> Primitives:
    """Many primitives as arrays."""
    halves = np.array([primitive.half for primitive in primitives], np.float64).reshape(-1, 3)
    is_round = np.array([primitive.shape in ("torus", "capsule") for primitive in primitives], np.bool_)
    is_torus = np.array([primitive.shape == "torus" for primitive in primitives], np.bool_)
    return Primitives(
        codes=np.array([shapes.SHAPES.index(primitive.shape) for primitive in primitives], np.uint8),
        centres=np.array([primitive.centre for primitive in primitives], np.float64).reshape(-1, 3).T.astype(np.float32),
        turns=np.array([primitive.turn for primitive in primitives], np.float64).reshape(-1, 3, 3).transpose(1, 2, 0).astype(np.float32),
        sizes=np.where(is_round[:, None], halves[:, :1], halves).T.astype(np.float32),
        proportions=np.asarray(np.where(is_torus, halves[:, 2], halves[:, 1] - halves[:, 0]) / halves[:, 0], np.float32),
        radii=np.array([_bounding_radius(primitive) for primitive in primitives], np.float32),
        faces=np.array([primitive.face for primitive in primitives], np.uint8),
    )


def _bounding_radius(primitive: Primitive) -> float:
    x, y, z = primitive.half
    across = max(x, z)
    return {
        "sphere": max(across, y),
        "box": float(np.sqrt(x * x + y * y + z * z)),
        "torus": max(x, y),
        "capsule": y,
    }.get(primitive.shape, float(np.sqrt(across * across + y * y)))


def _turned(turns: Array, vectors: Array) -> Array:
    x, y, z = vectors
    return np.asarray(turns[:, 0] * x + turns[:, 1] * y + turns[:, 2] * z, np.float32)
