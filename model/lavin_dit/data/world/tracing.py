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

from lavin_dit.data.world.geometry import Primitives, gather, join
from lavin_dit.data.world.layout import CLASSES, Lamp, Layout
from lavin_dit.data.world.limbs import CLOTHS, LIMBS, rods_of
from lavin_dit.data.world.shapes import MISS
from lavin_dit.data.world.textures import Paints, gather_paints
from lavin_dit.data.world.vectors import Array, Indices, dot, pick

SKY, GROUND, FIRST_SOLID = 0, 1, 2
NO_PART = -1
NEAREST_M = 0.05
SHADOW_OFFSET_M = 2e-3
SLACK = np.float32(1.02)
"""Balls are larger by this, so that rounding never leaves out a ray that hits."""


@dataclass(frozen=True)
class Things:
    """A scene's solids in the order of their shapes, then its figures, each in a ball (`centres`, `radii`).

    `owners` and `coats` are the primitives' instance numbers and the numbers of their `paints`. The first `num_solids` primitives are the
    solids, the others the limbs of one figure after the other.
    """

    primitives: Primitives
    owners: NDArray[np.uint8]
    coats: Indices
    paints: Paints
    classes: NDArray[np.uint8]
    centres: Array
    radii: Array
    num_solids: int

    def limbs(self, figure: int) -> slice:
        """The primitives of a figure."""
        first = self.num_solids + figure * len(LIMBS)
        return slice(first, first + len(LIMBS))


class _Beam(Protocol):
    """Rays that share something."""

    def may_meet(self, centres: Array, radii: Array, rays: Indices | None) -> NDArray[np.bool_]:
        """Which of some rays, or of all, meet balls. Shapes: `centres` (3, n), `radii` (n,), `rays` (s,); returns (n, s)."""


@dataclass(frozen=True)
class _Cone:
    """Rays from one point; `lengths` are those of their directions."""

    eye: Array
    directions: Array
    lengths: Array

    def may_meet(self, centres: Array, radii: Array, rays: Indices | None) -> NDArray[np.bool_]:
        directions, lengths = (self.directions, self.lengths) if rays is None else (pick(self.directions, rays), self.lengths.take(rays))
        offsets, radii = centres - self.eye, radii * SLACK
        beyond = dot(offsets, offsets) - radii * radii
        least = np.where(beyond < 0, -np.inf, np.sqrt(np.abs(beyond)))
        return np.asarray(offsets.T @ directions >= least[:, None] * lengths, np.bool_)


@dataclass(frozen=True)
class _Parallel:
    """Rays of one direction, along which a ball is a disc. `axes` are two square to it, and itself; `places` where rays begin on them, and
    half the square of how far from the direction's own line (4, s)."""

    axes: Array
    places: Array

    def may_meet(self, centres: Array, radii: Array, rays: Indices | None) -> NDArray[np.bool_]:
        places, own, radii = self.places if rays is None else pick(self.places, rays), self.axes @ centres, radii * SLACK
        across, up, depth = own
        products = own[:2].T @ places[:2]
        products -= places[3]
        is_near = products >= ((across * across + up * up - radii * radii) / 2)[:, None]
        return np.asarray(is_near & (places[2] < (depth + radii)[:, None]), np.bool_)


def _parallel(towards: tuple[float, float, float], points: Array) -> _Parallel:
    axes = _axes_along(towards)
    places = np.empty((4, points.shape[1]), np.float32)
    np.matmul(axes, points, out=places[:3])
    across, up = places[:2]
    places[3] = (across * across + up * up) / 2
    return _Parallel(axes, places)


@dataclass(frozen=True)
class _Pairs:
    """Rays (s,), numbered through all beams, that may meet parts: each is of the beam, and the part, that its row of these (m,) names."""

    parts: Indices
    beams: Indices
    rows: Indices
    rays: Indices


def things_of(layout: Layout) -> Things:
    """The solids and figures of a layout; `classes` are those of the instances, sky and ground included."""
    classes = [CLASSES.index(solid.shape) for solid in layout.solids]
    order = sorted(range(len(classes)), key=classes.__getitem__)
    solids, figures = gather([layout.solids[number].primitive for number in order]), [rods_of(figure) for figure in layout.figures]
    balls = [_ball(figure) for figure in figures]
    materials = [layout.materials[number] for number in order]
    coats, owners = [np.arange(len(order))], [FIRST_SOLID + number for number in order]
    for number, figure in enumerate(layout.figures, start=FIRST_SOLID + len(order)):
        coats.append(len(materials) + CLOTHS)
        owners += [number] * len(LIMBS)
        materials += figure.outfit.materials
    return Things(
        primitives=join([solids, *figures]),
        owners=np.array(owners, np.uint8),
        coats=np.concatenate(coats),
        paints=gather_paints(materials),
        classes=np.array([SKY, GROUND, *classes, *[CLASSES.index("figure")] * len(figures)], np.uint8),
        centres=np.concatenate([solids.centres, *(centre for centre, _ in balls)], axis=1),
        radii=np.concatenate([solids.radii, *(radius for _, radius in balls)]),
        num_solids=len(order),
    )


def first_hits(things: Things, eye: Array, directions: Array) -> tuple[Array, Indices]:
    """How far each ray gets, and the number of the primitive it meets, or `MISS` and `NO_PART`."""
    pairs = _find_pairs(things, [_Cone(eye, directions, np.sqrt(dot(directions, directions)))])
    hits = things.primitives.cast(pairs.parts, pairs.rows, eye[:, :, None], pick(directions, pairs.rays), nearest=NEAREST_M)
    met = (hits < MISS).nonzero()[0]
    hits, rays = hits.take(met), pairs.rays.take(met)
    depths = np.full(directions.shape[1], MISS)
    np.minimum.at(depths, rays, hits)
    wins = (hits == depths.take(rays)).nonzero()[0]
    first = np.full(directions.shape[1], NO_PART, np.intp)
    first[rays.take(wins)] = pairs.parts.take(pairs.rows.take(met.take(wins)))
    return depths, first


def find_shadows(things: Things, lamps: Sequence[Lamp], points: Array, normals: Array, is_facing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where things keep the light of lamps from surfaces that face them. Shapes: `is_facing`, returns (lamps, s)."""
    facing = [own.nonzero()[0] for own in is_facing]
    lifted = points + normals * np.float32(SHADOW_OFFSET_M)
    starts = [pick(lifted, own) for own in facing]
    pairs = _find_pairs(things, [_parallel(lamp.towards, start) for lamp, start in zip(lamps, starts, strict=True)])
    towards = np.array([lamp.towards for lamp in lamps], np.float32).T.take(pairs.beams, axis=1)
    origins = pick(np.concatenate(starts, axis=1), pairs.rays)
    hits = things.primitives.cast(pairs.parts, pairs.rows, origins, towards[:, :, None], nearest=SHADOW_OFFSET_M)
    is_hit = np.zeros(sum(own.size for own in facing), np.bool_)
    is_hit[pairs.rays.take((hits < MISS).nonzero()[0])] = True
    is_shadowed = np.zeros_like(is_facing)
    is_shadowed[is_facing] = is_hit
    return is_shadowed


def _ball(primitives: Primitives) -> tuple[Array, Array]:
    """A ball around primitives: its centre, its radius. Shapes: (3, 1), (1,)."""
    centres, radii = primitives.centres, primitives.radii
    middle = ((centres - radii).min(axis=1, keepdims=True) + (centres + radii).max(axis=1, keepdims=True)) / 2
    offsets = centres - middle
    return middle, (np.sqrt(dot(offsets, offsets)) + radii).max(keepdims=True)


def _find_pairs(things: Things, beams: Sequence[_Beam]) -> _Pairs:
    """Pairs of primitives and of rays that meet their balls: the balls of things first, then those of a figure's limbs."""
    near = [beam.may_meet(things.centres, things.radii, None) for beam in beams]
    starts = list(accumulate((meets.shape[1] for meets in near), initial=0))
    meets = np.concatenate(near, axis=1)
    of_beam = np.arange(len(beams)).repeat(np.diff(starts))
    solids, own = _list(meets[: things.num_solids])
    parts, sources = [part for part in range(things.num_solids) for _ in beams], [*range(len(beams))] * things.num_solids
    rows, rays = [solids * len(beams) + of_beam.take(own)], [own]
    for figure, near_figure in enumerate(meets[things.num_solids :]):
        limbs = things.limbs(figure)
        centres, radii = things.primitives.centres[:, limbs], things.primitives.radii[limbs]
        for number, beam in enumerate(beams):
            own = near_figure[starts[number] : starts[number + 1]].nonzero()[0]
            members, places = _list(beam.may_meet(centres, radii, own))
            rows.append(members + len(parts))
            rays.append(own.take(places) + starts[number])
            parts += range(limbs.start, limbs.stop)
            sources += [number] * len(LIMBS)
    return _Pairs(np.array(parts, np.intp), np.array(sources, np.intp), np.concatenate(rows), np.concatenate(rays))


def _list(pairs: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """The rows and columns of true elements, row by row."""
    places, width = pairs.ravel().nonzero()[0], max(pairs.shape[1], 1)
    rows = places // width
    return rows, places - rows * width


def _axes_along(towards: tuple[float, float, float]) -> Array:
    """Two directions square to a light's, and its own. Shapes: (3, 3)."""
    x, y, z = towards
    level = math.hypot(x, z)
    right_x, right_z = (z / level, -x / level) if level > 0 else (1.0, 0.0)
    return np.array([[right_x, 0.0, right_z], [y * right_z, z * right_x - x * right_z, -y * right_x], [x, y, z]], np.float32)
