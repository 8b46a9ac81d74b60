"""Samples of a scene: what rays from the camera meet, how it lies and how it is painted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.layout import Layout
from lavin_dit.data.world.shading import paint_sky
from lavin_dit.data.world.shapes import MISS
from lavin_dit.data.world.textures import paint_ground
from lavin_dit.data.world.tracing import GROUND, NO_PART, SKY, Things, first_hits
from lavin_dit.data.world.vectors import Array, Indices, normalised, pick

FLAT = np.array([[1], [0], [1]], np.float32)
"""The ground is painted from above."""


@dataclass(frozen=True)
class Traces:
    """Where rays from the camera's `eye` (3, 1) end. Shapes: `directions` (3, s); `depths` (s,), inf in the sky; `parts` (s,), `NO_PART`
    on the ground and in the sky.
    """

    eye: Array
    directions: Array
    depths: Array
    parts: Indices

    @property
    def is_sky(self) -> NDArray[np.bool_]:
        """Which rays meet nothing."""
        return np.isinf(self.depths)

    @property
    def points(self) -> Array:
        """What they meet; the eye itself for those that meet nothing."""
        return np.asarray(self.directions * np.where(self.is_sky, np.float32(0), self.depths) + self.eye, np.float32)


@dataclass(frozen=True)
class Samples:
    """What rays meet, sorted: those on the ground, then those on `things`, then those in the sky. `places` tell where each ray's is.

    Shapes: all samples' `owners` (instance numbers), `faces` (s,), `normals` (in the world, zero in the sky), `albedo` (3, s); `points`
    (3, s) and `distances` (s,) of those not in the sky; `views` (unit directions, 3, s) and `gloss` (s,) of those on things.
    """

    traces: Traces
    places: Indices
    things: slice
    owners: NDArray[np.uint8]
    faces: NDArray[np.uint8]
    normals: Array
    albedo: Array
    points: Array
    distances: Array
    views: Array
    gloss: Array


def sample(layout: Layout, things: Things, directions: Array) -> Samples:
    """Follows rays from the camera."""
    traces = _trace(layout, things, directions)
    is_on_thing, is_sky = traces.parts != NO_PART, traces.is_sky
    on_ground, on_things, in_sky = (which.nonzero()[0] for which in (~(is_on_thing | is_sky), is_on_thing, is_sky))
    order, first, last = np.concatenate([on_ground, on_things, in_sky]), on_ground.size, on_ground.size + on_things.size
    ground, own, sky = slice(first), slice(first, last), slice(last, None)
    directions, distances = pick(directions, order), traces.depths.take(order[:last])
    points, met = directions[:, :last] * distances + traces.eye, traces.parts.take(on_things)
    coats, places = things.coats.take(met), np.empty_like(order)
    places[order] = np.arange(order.size)
    owners, faces = np.full(order.size, SKY, np.uint8), np.zeros(order.size, np.uint8)
    normals, albedo = np.zeros_like(directions), np.empty_like(directions)
    owners[ground], owners[own] = GROUND, things.owners.take(met)
    normals[:, ground] = _ground_normals(layout, points[:, ground], distances[ground])
    normals[:, own], faces[own], local = things.primitives.surface(met, points[:, own])
    albedo[:, ground] = paint_ground(layout.ground, points[:, ground] * FLAT, distances[ground])
    albedo[:, own] = things.paints.paint(coats, local)
    albedo[:, sky] = paint_sky(layout.light, directions[:, sky])
    views, gloss = normalised(directions[:, own]), things.paints.gloss.take(coats)
    return Samples(traces, places, own, owners, faces, normals, albedo, points, distances, views, gloss)


def _trace(layout: Layout, things: Things, directions: Array) -> Traces:
    eye = layout.camera.eye
    depths, parts = first_hits(things, eye, directions)
    ground_depths = _cast_ground(layout, directions, depths)
    parts[ground_depths <= depths] = NO_PART
    return Traces(eye, directions, np.minimum(depths, ground_depths), parts)


def _cast_ground(layout: Layout, directions: Array, limits: Array) -> Array:
    """Distances at which rays meet the ground, or `MISS`, also where they end before it."""
    if layout.terrain is not None:
        return layout.terrain.cast(layout.camera.eye, directions, limits)
    is_down = directions[1] < -1e-5
    return np.where(is_down, -layout.camera.eye[1] / np.where(is_down, directions[1], np.float32(-1)), MISS)


def _ground_normals(layout: Layout, points: Array, distances: Array) -> Array:
    if layout.terrain is not None:
        return layout.terrain.normals(points, distances)
    return np.array([[0], [1], [0]], np.float32)
