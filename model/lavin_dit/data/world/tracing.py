"""What rays meet first, and what keeps light from a surface: a scene's things as arrays, and which rays may meet which of them.

Each thing (a solid, a figure) is a group of primitives in a ball; rays that miss the ball are left out, and what remains is solved as one
list of (primitive, ray) pairs.

Shapes: points and directions are `(3, s)` float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.geometry import Primitive, Primitives, gather
from lavin_dit.data.world.layout import CLASSES, Lamp, Layout
from lavin_dit.data.world.shapes import MISS
from lavin_dit.data.world.textures import Material, Paints, gather_paints
from lavin_dit.data.world.vectors import Array, Indices, dot, pick

SKY, GROUND, FIRST_SOLID = 0, 1, 2
NO_PART = -1
NEAREST_M = 0.05
SHADOW_OFFSET_M = 2e-3
SLACK = np.float32(1.02)
"""Balls are larger by this, so that rounding never leaves out a ray that hits."""


@dataclass(frozen=True)
class Things:
    """A scene's solids and figures, each in a ball.

    `owners` are the primitives' instance numbers; `firsts` and `counts` tell the primitives of each thing; `order` sorts the things by
    shape.
    """

    primitives: Primitives
    paints: Paints
    owners: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    centres: Array
    radii: Array
    firsts: list[int]
    counts: list[int]
    order: list[int]


class _Beam(Protocol):
    """Rays that share something."""

    def may_meet(self, centres: Array, radii: Array, rays: Indices | None) -> NDArray[np.bool_]:
        """Which of some rays, or of all, meet balls. Shapes: `centres` (3, n), `radii` (n,), `rays` (s,); returns (n, s)."""


@dataclass(frozen=True)
class _Cone:
    """Rays from one point."""

    eye: Array
    directions: Array
    squares: Array

    def may_meet(self, centres: Array, radii: Array, rays: Indices | None) -> NDArray[np.bool_]:
        directions, squares = (self.directions, self.squares) if rays is None else (pick(self.directions, rays), self.squares[rays])
        offsets, radii = centres - self.eye, radii * SLACK
        along = offsets.T @ directions
        beyond = (dot(offsets, offsets) - radii * radii)[:, None]
        return np.asarray((along * along >= beyond * squares) & (along > 0) | (beyond < 0), np.bool_)


@dataclass(frozen=True)
class _Parallel:
    """Rays of one direction, along which a ball is a disc. `axes` are two square to it, and itself; `places` where rays begin on them."""

    axes: Array
    places: Array

    def may_meet(self, centres: Array, radii: Array, rays: Indices | None) -> NDArray[np.bool_]:
        across, up, depth = self.places if rays is None else pick(self.places, rays)
        own_across, own_up, own_depth = (self.axes @ centres)[:, :, None]
        radii = (radii * SLACK)[:, None]
        own_across, own_up = own_across - across, own_up - up
        return np.asarray((own_across * own_across + own_up * own_up <= radii * radii) & (depth < own_depth + radii), np.bool_)


@dataclass(frozen=True)
class _Pairs:
    """`counts` rays of one of `beams` for each of `parts`, one after the other.

    Shapes: `parts`, `beams`, `counts` (m,); `rays` (s,), numbered through all beams.
    """

    parts: Indices
    beams: Indices
    counts: Indices
    rays: Indices


def things_of(layout: Layout) -> Things:
    """The solids, then the figures of a layout; `classes` are those of the instances, sky and ground included."""
    groups: list[tuple[tuple[Primitive, ...], tuple[Material, ...]]] = [
        ((solid.primitive,), (material,)) for solid, material in zip(layout.solids, layout.materials, strict=True)
    ]
    groups += [figure.limbs for figure in layout.figures]
    counts = [len(parts) for parts, _ in groups]
    primitives = gather([part for parts, _ in groups for part in parts])
    firsts = list(accumulate(counts, initial=0))[:-1]
    balls = [_ball(primitives, slice(first, first + count)) for first, count in zip(firsts, counts, strict=True)]
    names = ["sky", "ground", *(solid.shape for solid in layout.solids), *("figure" for _ in layout.figures)]
    return Things(
        primitives=primitives,
        paints=gather_paints([material for _, materials in groups for material in materials]),
        owners=np.repeat(np.arange(FIRST_SOLID, FIRST_SOLID + len(groups), dtype=np.uint8), counts),
        classes=np.array([CLASSES.index(name) for name in names], np.uint8),
        centres=np.array([centre for centre, _ in balls], np.float32).reshape(-1, 3).T,
        radii=np.array([radius for _, radius in balls], np.float32),
        firsts=firsts,
        counts=counts,
        order=sorted(range(len(groups)), key=lambda group: int(primitives.codes[firsts[group]])),
    )


def first_hits(things: Things, eye: Array, directions: Array) -> tuple[Array, Indices]:
    """How far each ray gets, and the number of the primitive it meets, or `MISS` and `NO_PART`."""
    pairs = _find_pairs(things, [_Cone(eye, directions, dot(directions, directions))])
    hits = things.primitives.cast(pairs.parts, pairs.counts, eye[:, :, None], pick(directions, pairs.rays), nearest=NEAREST_M)
    depths = np.full(directions.shape[1], MISS)
    np.minimum.at(depths, pairs.rays, hits)
    wins = np.flatnonzero((hits < MISS) & (hits == depths[pairs.rays]))
    first = np.full(directions.shape[1], NO_PART, np.intp)
    first[pairs.rays[wins]] = np.repeat(pairs.parts, pairs.counts)[wins]
    return depths, first


def find_light(things: Things, lamps: Sequence[Lamp], points: Array, normals: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Where lamps shine on surfaces, 0 in shadows and on faces turned away; and what lies in shadow. Shapes: both (lamps, s)."""
    directions = np.array([lamp.towards for lamp in lamps], np.float32).T
    facing = [np.flatnonzero(dot(normals, towards) > 0) for towards in directions.T]
    starts = [pick(points, own) + pick(normals, own) * np.float32(SHADOW_OFFSET_M) for own in facing]
    axes = [_axes_along(towards) for towards in directions.T]
    pairs = _find_pairs(things, [_Parallel(own, own @ start) for own, start in zip(axes, starts, strict=True)])
    towards, origins = pick(directions, pairs.beams)[:, :, None], pick(np.concatenate(starts, axis=1), pairs.rays)
    hits = things.primitives.cast(pairs.parts, pairs.counts, origins, towards, nearest=SHADOW_OFFSET_M)
    is_free = np.ones(sum(own.size for own in facing), np.bool_)
    is_free[pairs.rays[hits < MISS]] = False
    is_lit, is_shadowed = np.zeros((len(lamps), points.shape[1]), np.float32), np.zeros((len(lamps), points.shape[1]), np.bool_)
    ends = list(accumulate(own.size for own in facing))
    for lit, shadowed, own, end in zip(is_lit, is_shadowed, facing, ends, strict=True):
        free = is_free[end - own.size : end]
        lit[own], shadowed[own] = free, ~free
    return is_lit, is_shadowed


def _ball(primitives: Primitives, members: slice) -> tuple[NDArray[np.float64], float]:
    """A ball around primitives: its centre, its radius."""
    centres, radii = primitives.centres[:, members].astype(np.float64), primitives.radii[members]
    middle = ((centres - radii).min(axis=1) + (centres + radii).max(axis=1)) / 2
    return middle, float((np.sqrt(((centres - middle[:, None]) ** 2).sum(axis=0)) + radii).max())


def _find_pairs(things: Things, beams: Sequence[_Beam]) -> _Pairs:
    """Pairs of primitives and of rays that meet their balls: the balls of things first, then those of their members."""
    parts: list[int] = []
    numbers: list[int] = []
    rays: list[Indices] = []
    near = [beam.may_meet(things.centres, things.radii, None) for beam in beams]
    starts = list(accumulate((meets.shape[1] for meets in near), initial=0))
    for thing in things.order:
        first, count = things.firsts[thing], things.counts[thing]
        for number, beam in enumerate(beams):
            own = near[number][thing].nonzero()[0]
            parts += range(first, first + count)
            numbers += [number] * count
            if count == 1:
                rays.append(own + starts[number])
            else:
                members = slice(first, first + count)
                meets = beam.may_meet(things.primitives.centres[:, members], things.primitives.radii[members], own)
                own += starts[number]
                rays += [own[met] for met in meets]
    counts = np.array([own.size for own in rays], np.intp)
    return _Pairs(np.array(parts, np.intp), np.array(numbers, np.intp), counts, np.concatenate([*rays, np.empty(0, np.intp)]))


def _axes_along(towards: Array) -> Array:
    """Two directions square to a light's, and its own. Shapes: (3, 3)."""
    x, y, z = towards.tolist()
    level = math.hypot(x, z)
    right_x, right_z = (z / level, -x / level) if level > 0 else (1.0, 0.0)
    return np.array([[right_x, 0.0, right_z], [y * right_z, z * right_x - x * right_z, -y * right_x], [x, y, z]], np.float32)
