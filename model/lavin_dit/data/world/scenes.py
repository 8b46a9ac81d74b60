"""Rendered scenes: analytic ray casting that knows every pixel's depth, normal, instance, class and albedo exactly.

Each pixel is sampled at its centre, which the maps are read from. Around it, four more samples take the stairs out of the picture: of every
pixel in the easy world, elsewhere of those that differ from a neighbour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.figures import JOINT_DEPTHS, NUM_JOINTS
from lavin_dit.data.world.furnishing import draw_layout
from lavin_dit.data.world.layout import EASY, Layout, World
from lavin_dit.data.world.shading import haze, light_up, paint_sky
from lavin_dit.data.world.shapes import MISS
from lavin_dit.data.world.textures import paint_ground
from lavin_dit.data.world.tracing import FIRST_SOLID, GROUND, NO_PART, SKY, Things, find_light, first_hits, things_of
from lavin_dit.data.world.vectors import Array, Indices, normalised, pick, put

__all__ = ["FAR_M", "FIRST_SOLID", "GROUND", "SKY", "Scene", "Traces", "render", "render_scene", "render_traced"]

FAR_M = 32.0
CENTRE = (0.5, 0.5)
AROUND = ((0.3, 0.15), (0.85, 0.3), (0.7, 0.85), (0.15, 0.7))
FLAT = np.array([[1], [0], [1]], np.float32)
"""The ground is painted from above."""
NOTICED = np.float32(0.1)
"""The difference in a colour, of 1, from which two pixels are told apart."""


@dataclass(frozen=True)
class Scene:
    """A picture and what is exactly known of each of its pixels.

    `shadowless` is the picture with every cast shadow lit; `joints` are the figures' (see `lavin_dit.data.world.figures`).
    Shapes: `rgb`, `shadowless`, `albedo`, `normals` (h, w, 3); `joints` (figures, NUM_JOINTS, 3); the others (h, w).
    Units: `depth` metres along the optical axis, sky and beyond `FAR_M` clipped to it; `normals` unit vectors in camera space
    (x right, y up, z towards the viewer), zero in the sky; `instances` 0 sky, 1 ground, then solids and whole figures; `classes` index
    `CLASSES`; `faces` tell the smooth parts of each instance apart; `joints` column and row in pixels (centres at integers + 0.5, perhaps
    outside), then 1 where seen, 0 where hidden or outside.
    """

    rgb: NDArray[np.uint8]
    shadowless: NDArray[np.uint8]
    albedo: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    instances: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    faces: NDArray[np.uint8]
    joints: NDArray[np.float32]


@dataclass(frozen=True)
class Traces:
    """Where the rays through the pixels' centres end. Shapes: `directions`, `points` (3, h*w); `parts` (h*w,), `NO_PART` on the ground
    and in the sky; `is_sky` (h*w,).
    """

    directions: Array
    points: Array
    parts: Indices
    is_sky: NDArray[np.bool_]


@dataclass(frozen=True)
class _Samples:
    """What the rays met: `depths` (s,), inf in the sky; `owners` instance numbers (s,); the rest as in `Scene`, in world space."""

    directions: Array
    depths: Array
    parts: Indices
    owners: NDArray[np.uint8]
    points: Array
    normals: Array
    faces: NDArray[np.uint8]
    albedo: Array
    gloss: Array

    def at(self, places: Indices) -> "_Samples":
        """Some of the samples."""
        fields = (getattr(self, name) for name in self.__dataclass_fields__)
        return _Samples(*(field.take(places, axis=-1) for field in fields))


def render_scene(seed: int, index: int, resolution: int, *, world: World = EASY) -> Scene:
    """Scene `index` of the world `seed`; depends on nothing but its arguments."""
    return render(draw_layout(seed, index, world), resolution)


def render(layout: Layout, resolution: int) -> Scene:
    """Renders any layout as a square picture with its maps."""
    return render_traced(layout, resolution)[0]


def render_traced(layout: Layout, resolution: int) -> tuple[Scene, Traces]:
    """A scene, and where its rays ended."""
    things, pixels, square = things_of(layout), np.arange(resolution * resolution), (resolution, resolution)
    centres = _sample(layout, things, _rays(layout, pixels, (CENTRE,), resolution))
    shown = _expose(layout, things, centres)
    unlike = pixels if layout.is_sampled_everywhere else _find_unlike(shown[0], centres, resolution)
    around = _expose(layout, things, _sample(layout, things, _rays(layout, unlike, AROUND, resolution)))
    lit, shadowless = (_to_picture(_blend(*both, unlike), resolution) for both in zip(shown, around, strict=True))
    depth = np.minimum(centres.depths, np.float32(FAR_M)).reshape(square)
    scene = Scene(
        rgb=lit,
        shadowless=shadowless,
        albedo=_to_picture(centres.albedo, resolution),
        depth=depth,
        normals=np.asarray(layout.camera.turn(centres.normals), np.float32).reshape(3, *square).transpose(1, 2, 0),
        instances=centres.owners.reshape(square),
        classes=things.classes[centres.owners].reshape(square),
        faces=centres.faces.reshape(square),
        joints=_find_joints(layout, depth),
    )
    return scene, Traces(centres.directions, centres.points, centres.parts, centres.owners == SKY)


def _rays(layout: Layout, pixels: Indices, places: tuple[tuple[float, float], ...], resolution: int) -> Array:
    """Directions through places within pixels. Shapes: returns (3, places * pixels)."""
    rows, columns = np.divmod(pixels, resolution)
    return layout.camera.rays(
        np.concatenate([columns + dx for dx, _ in places]), np.concatenate([rows + dy for _, dy in places]), resolution
    )


def _sample(layout: Layout, things: Things, directions: Array) -> _Samples:
    eye = layout.camera.eye
    depths, parts = first_hits(things, eye, directions)
    ground_depths = _cast_ground(layout, directions, depths)
    parts[ground_depths <= depths] = NO_PART
    depths = np.minimum(depths, ground_depths)
    is_sky = depths == MISS
    points = directions * np.where(is_sky, np.float32(0), depths) + eye
    normals, albedo = np.zeros_like(directions), np.empty_like(directions)
    faces, gloss = np.zeros(depths.shape, np.uint8), np.zeros(depths.shape, np.float32)
    owners = np.where(is_sky, np.uint8(SKY), np.uint8(GROUND))
    sky, ground, own = np.flatnonzero(is_sky), np.flatnonzero(~is_sky & (parts == NO_PART)), np.flatnonzero(parts != NO_PART)
    put(albedo, sky, paint_sky(layout.light, pick(directions, sky)))
    ground_points, ground_depths = pick(points, ground), ground_depths[ground]
    put(normals, ground, _ground_normals(layout, ground_points, ground_depths))
    put(albedo, ground, paint_ground(layout.ground, ground_points * FLAT, ground_depths))
    met = parts[own]
    owners[own], gloss[own] = things.owners[met], things.paints.gloss[met]
    own_normals, faces[own], local = things.primitives.surface(met, pick(points, own))
    put(normals, own, own_normals)
    put(albedo, own, things.paints.paint(met, local))
    return _Samples(directions, depths, parts, owners, points, normals, faces, albedo, gloss)


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


def _expose(layout: Layout, things: Things, samples: _Samples) -> tuple[Array, Array]:
    """The colours of samples, and those they would have if nothing threw a shadow."""
    lit, shadowed = find_light(things, layout.all_lamps, samples.points, samples.normals)
    views = normalised(samples.directions)
    shown = _shade(layout, samples, views, lit)
    bare, places = shown.copy(), np.flatnonzero(shadowed.any(axis=0))
    put(bare, places, _shade(layout, samples.at(places), pick(views, places), np.maximum(lit, shadowed).take(places, axis=1)))
    return shown, bare


def _shade(layout: Layout, samples: _Samples, views: Array, lit: Array) -> Array:
    linear = light_up(layout.light, layout.all_lamps, lit, samples.albedo, samples.normals, views, samples.gloss)
    shown = np.sqrt(np.maximum(haze(layout.light, linear, samples.depths), 0))
    return np.where(samples.owners == SKY, samples.albedo, np.minimum(shown, 1))


def _find_unlike(shown: Array, samples: _Samples, resolution: int) -> Indices:
    """Pixels that belong to another surface than a neighbour, or have another colour."""
    surfaces = (samples.owners.astype(np.int32) * 256 + samples.faces).reshape(resolution, resolution)
    colours = shown.reshape(3, resolution, resolution)
    is_unlike = np.zeros((resolution, resolution), np.bool_)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:, :], np.s_[:-1, :])):
        differs = np.abs(colours[:, *here] - colours[:, *there]).max(axis=0) > NOTICED
        differs |= surfaces[here] != surfaces[there]
        is_unlike[here] |= differs
        is_unlike[there] |= differs
    return np.flatnonzero(is_unlike)


def _blend(centres: Array, around: Array, unlike: Indices) -> Array:
    """The mean colour of each pixel's samples."""
    blended = centres.copy()
    samples = np.concatenate([pick(centres, unlike)[:, None], around.reshape(3, len(AROUND), -1)], axis=1)
    put(blended, unlike, samples.mean(axis=1))
    return blended


def _find_joints(layout: Layout, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where joints are in the picture, and whether nothing but their own flesh lies before them."""
    resolution, joints = len(depth), np.zeros((len(layout.figures), NUM_JOINTS, 3), np.float32)
    for number, figure in enumerate(layout.figures):
        columns, rows, depths = layout.camera.project(figure.joints.T, resolution)
        is_inside = (np.minimum(columns, rows) >= 0) & (np.maximum(columns, rows) < resolution) & (depths > 0)
        places = (np.clip(axis, 0, resolution - 1).astype(np.intp) for axis in (rows, columns))
        is_seen = is_inside & (depth[*places] > depths - np.array(JOINT_DEPTHS) * figure.height)
        joints[number] = np.stack([columns, rows, is_seen], axis=-1)
    return joints


def _to_picture(colours: Array, resolution: int) -> NDArray[np.uint8]:
    levels = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return levels.reshape(3, resolution, resolution).transpose(1, 2, 0)
