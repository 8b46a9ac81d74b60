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
from lavin_dit.data.world.sampling import Samples, Traces, sample
from lavin_dit.data.world.shading import directions_of, haze, hidden_by_haze, light_up, mirror
from lavin_dit.data.world.tracing import FIRST_SOLID, GROUND, SKY, Things, find_shadows, things_of
from lavin_dit.data.world.vectors import Array, Indices, dot, pick, put

__all__ = ["FAR_M", "FIRST_SOLID", "GROUND", "SKY", "Scene", "render", "render_scene", "render_traced"]

FAR_M = 32.0
CENTRE = np.array([[0.5, 0.5]])
AROUND = np.array([[0.3, 0.15], [0.85, 0.3], [0.7, 0.85], [0.15, 0.7]])
"""Where in a pixel: shares of its width and height."""
NOTICED = np.float32(0.1)
"""The difference in a colour, of 1, from which two pixels are told apart."""
KEPT_BYTES = 30 * 2**20
"""glibc takes note of no block larger than 32 MiB."""


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


def render_scene(seed: int, index: int, resolution: int, *, world: World = EASY) -> Scene:
    """Scene `index` of the world `seed`; depends on nothing but its arguments."""
    return render(draw_layout(seed, index, world), resolution)


def render(layout: Layout, resolution: int) -> Scene:
    """Renders any layout as a square picture with its maps."""
    return render_traced(layout, resolution)[0]


def render_traced(layout: Layout, resolution: int) -> tuple[Scene, Traces]:
    """A scene, and where its rays ended."""
    _keep_memory()
    things, pixels, square = things_of(layout), np.arange(resolution * resolution), (resolution, resolution)
    centres = sample(layout, things, _rays(layout, pixels, CENTRE, resolution))
    owners, faces = centres.owners.take(centres.places).reshape(square), centres.faces.take(centres.places).reshape(square)
    colours = _expose(layout, things, centres)
    unlike = pixels if layout.is_sampled_everywhere else _find_unlike(colours[:3], owners, faces)
    around = _expose(layout, things, sample(layout, things, _rays(layout, unlike, AROUND, resolution)))
    lit, shadowless = _blend(colours, around, unlike).reshape(2, 3, *square)
    normals = np.asarray(layout.camera.turn(centres.normals), np.float32)
    depth = np.minimum(centres.traces.depths, np.float32(FAR_M)).reshape(square)
    scene = Scene(
        rgb=_to_picture(lit),
        shadowless=_to_picture(shadowless),
        albedo=_to_picture(pick(centres.albedo, centres.places).reshape(3, *square)),
        depth=depth,
        normals=pick(normals, centres.places).reshape(3, *square).transpose(1, 2, 0),
        instances=owners,
        classes=things.classes.take(owners),
        faces=faces,
        joints=_find_joints(layout, depth),
    )
    return scene, centres.traces


def _keep_memory() -> None:
    """Has the scene's memory kept for the next one."""
    # glibc hands what is freed back to the system, and each page of it costs a fault in the next scene (a third of the time at 256 px),
    # until it has seen a block as large as this come and go. It is never touched, and takes no memory.
    np.empty(KEPT_BYTES, np.uint8)


def _rays(layout: Layout, pixels: Indices, places: NDArray[np.float64], resolution: int) -> Array:
    """Directions through places within pixels. Shapes: `places` (n, 2); returns (3, n * pixels)."""
    rows = pixels // resolution
    columns = pixels - rows * resolution
    lines = np.arange(resolution) + places.T[:, :, None]
    right, (up, forwards) = layout.camera.across(lines[0], resolution), layout.camera.upright(lines[1], resolution)
    return np.array([pick(right, columns), pick(up, rows), pick(forwards, rows)]).reshape(3, -1)


def _expose(layout: Layout, things: Things, samples: Samples) -> Array:
    """The colours of all rays' samples, and those they would have if nothing threw a shadow. Shapes: returns (6, s)."""
    lamps, own, surfaces = layout.all_lamps, samples.things, slice(samples.things.stop)
    normals, albedo = samples.normals[:, surfaces], samples.albedo[:, surfaces]
    cosines = dot(normals[:, None], directions_of(lamps)[:, :, None])
    is_facing = cosines > 0
    is_shadowed = find_shadows(things, lamps, samples.points, normals, is_facing)
    scattered = np.maximum(cosines, 0) * np.array([[lamp.strength] for lamp in lamps], np.float32)
    mirrored = np.zeros_like(scattered)
    mirrored[:, own] = mirror(lamps, samples.normals[:, own], samples.views, samples.gloss) * is_facing[:, own]
    hidden = hidden_by_haze(layout.light, samples.distances)
    is_lit = ~is_shadowed
    colours = np.concatenate([samples.albedo, samples.albedo])
    colours[:3, surfaces] = _shade(layout, scattered * is_lit, mirrored * is_lit, albedo, normals[1], hidden)
    colours[3:, surfaces] = colours[:3, surfaces]
    dark = np.flatnonzero(is_shadowed.any(axis=0))
    bare = _shade(layout, *(values.take(dark, axis=-1) for values in (scattered, mirrored, albedo, normals[1], hidden)))
    put(colours[3:], dark, bare)
    return pick(colours, samples.places)


def _shade(layout: Layout, scattered: Array, mirrored: Array, albedo: Array, upwards: Array, hidden: Array) -> Array:
    linear = light_up(layout.light, layout.all_lamps, scattered, mirrored, albedo, upwards)
    return np.minimum(np.sqrt(haze(layout.light, linear, hidden)), 1)


def _find_unlike(colours: Array, owners: NDArray[np.uint8], faces: NDArray[np.uint8]) -> Indices:
    """Pixels that belong to another surface than a neighbour, or have another colour."""
    surfaces, colours = owners.astype(np.uint16) * 256 + faces, colours.reshape(3, *owners.shape)
    is_unlike = np.zeros(owners.shape, np.bool_)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:, :], np.s_[:-1, :])):
        differs = np.maximum.reduce(np.abs(colours[:, *here] - colours[:, *there])) > NOTICED
        differs |= surfaces[here] != surfaces[there]
        is_unlike[here] |= differs
        is_unlike[there] |= differs
    return np.flatnonzero(is_unlike)


def _blend(colours: Array, around: Array, unlike: Indices) -> Array:
    """The mean colour of each pixel's samples."""
    total = pick(colours, unlike)
    for others in around.reshape(len(colours), len(AROUND), -1).swapaxes(0, 1):
        total += others
    put(colours, unlike, total / np.float32(1 + len(AROUND)))
    return colours


def _find_joints(layout: Layout, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where joints are in the picture, and whether nothing but their own flesh lies before them."""
    resolution, joints = len(depth), np.zeros((len(layout.figures), NUM_JOINTS, 3), np.float32)
    for number, figure in enumerate(layout.figures):
        columns, rows, depths = layout.camera.project(figure.joints.T, resolution)
        is_inside = (np.minimum(columns, rows) >= 0) & (np.maximum(columns, rows) < resolution) & (depths > 0)
        places = (np.clip(axis, 0, resolution - 1).astype(np.intp) for axis in (rows, columns))
        is_seen = is_inside & (depth[*places] > depths - np.array(JOINT_DEPTHS) * figure.height)
        joints[number] = np.array([columns, rows, is_seen]).T
    return joints


def _to_picture(colours: Array) -> NDArray[np.uint8]:
    return np.rint(colours * 255).astype(np.uint8).transpose(1, 2, 0)
