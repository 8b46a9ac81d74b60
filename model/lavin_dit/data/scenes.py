"""Rendered scenes: analytic ray casting that knows every pixel's depth, normal, instance, class and albedo exactly.

Each pixel is sampled five times: at its centre, which the maps are read from, and around it, so that the picture has no stairs.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.geometry import Array, cast, surface
from lavin_dit.data.layout import CLASSES, Camera, Layout, draw_layout
from lavin_dit.data.shading import haze, light_up, paint, paint_sky

FAR_M = 32.0
SKY, GROUND, FIRST_SOLID = 0, 1, 2
SAMPLES = ((0.5, 0.5), (0.3, 0.15), (0.85, 0.3), (0.7, 0.85), (0.15, 0.7))
SHADOW_OFFSET_M = 2e-3


@dataclass(frozen=True)
class Scene:
    """A picture and what is exactly known of each of its pixels.

    Shapes: `rgb`, `albedo`, `normals` (h, w, 3); the others (h, w).
    Units: `depth` metres along the optical axis, sky and beyond `FAR_M` clipped to it; `normals` unit vectors in camera space
    (x right, y up, z towards the viewer), zero in the sky; `instances` 0 sky, 1 ground, then the solids; `classes` index `CLASSES`;
    `faces` tell the smooth parts of each instance apart.
    """

    rgb: NDArray[np.uint8]
    albedo: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    instances: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    faces: NDArray[np.uint8]


@dataclass(frozen=True)
class _Samples:
    """What the rays met: `depths` (s,), inf in the sky; `owners` instance numbers (s,); the rest as in `Scene`, in world space."""

    depths: Array
    owners: NDArray[np.uint8]
    normals: Array
    faces: NDArray[np.uint8]
    albedo: Array
    gloss: Array
    points: Array


def render_scene(seed: int, index: int, resolution: int) -> Scene:
    """Scene `index` of the world `seed`; depends on nothing but its arguments."""
    return render(draw_layout(seed, index), resolution)


def render(layout: Layout, resolution: int) -> Scene:
    """Renders any layout as a square picture with its maps."""
    directions = _rays(layout.camera, resolution)
    samples = _sample(layout, directions)
    rgb = _expose(layout, samples, directions).reshape(3, len(SAMPLES), resolution, resolution).mean(axis=1)
    centre = slice(0, resolution * resolution)
    square = (resolution, resolution)
    classes = np.array([SKY, GROUND] + [CLASSES.index(solid.shape) for solid in layout.solids], np.uint8)
    return Scene(
        rgb=_to_picture(rgb),
        albedo=_to_picture(samples.albedo[:, centre].reshape(3, *square)),
        depth=np.minimum(samples.depths[centre], np.float32(FAR_M)).reshape(square),
        normals=_to_camera_space(layout.camera, samples.normals[:, centre]).reshape(3, *square).transpose(1, 2, 0),
        instances=samples.owners[centre].reshape(square),
        classes=classes[samples.owners[centre]].reshape(square),
        faces=samples.faces[centre].reshape(square),
    )


def _rays(camera: Camera, resolution: int) -> Array:
    """Directions whose length along the optical axis is 1, so that a hit's parameter is its depth."""
    grid = np.arange(resolution)
    reach = math.tan(camera.field_of_view / 2)
    columns = np.stack([np.broadcast_to((grid + dx)[None, :], (resolution, resolution)) for dx, _ in SAMPLES])
    rows = np.stack([np.broadcast_to((grid + dy)[:, None], (resolution, resolution)) for _, dy in SAMPLES])
    right = (2 * columns / resolution - 1) * reach
    up = (1 - 2 * rows / resolution) * reach
    cosine, sine = math.cos(camera.pitch), math.sin(camera.pitch)
    return np.stack([right, up * cosine - sine, cosine + up * sine]).reshape(3, -1).astype(np.float32)


def _to_camera_space(camera: Camera, normals: Array) -> Array:
    cosine, sine = np.float32(math.cos(camera.pitch)), np.float32(math.sin(camera.pitch))
    x, y, z = normals
    return np.stack([x, cosine * y + sine * z, sine * y - cosine * z])


def _trace(layout: Layout, directions: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Depth of what each ray meets first, and which instance that is."""
    height = np.float32(layout.camera.height)
    is_down = directions[1] < -1e-5
    depths = np.where(is_down, -height / np.where(is_down, directions[1], np.float32(-1)), np.float32(np.inf))
    owners = np.where(is_down, GROUND, SKY).astype(np.uint8)
    eye = np.array([[layout.camera.x], [height], [layout.camera.z]], np.float32)
    for owner, solid in enumerate(layout.solids, start=FIRST_SOLID):
        hits = cast(solid, eye, directions, nearest=0.05)
        is_nearer = hits < depths
        depths = np.where(is_nearer, hits, depths)
        owners[is_nearer] = owner
    return depths, owners


def _sample(layout: Layout, directions: Array) -> _Samples:
    depths, owners = _trace(layout, directions)
    points = directions * np.where(owners == SKY, np.float32(0), depths)
    points += np.array([[layout.camera.x], [layout.camera.height], [layout.camera.z]], np.float32)
    normals, albedo = np.zeros_like(directions), paint_sky(layout.light, directions)
    faces, gloss = np.zeros(depths.shape, np.uint8), np.zeros(depths.shape, np.float32)
    ground = np.flatnonzero(owners == GROUND)
    normals[1, ground] = 1
    albedo[:, ground] = paint(layout.ground, points[:, ground], depths[ground])
    for owner, (solid, material) in enumerate(zip(layout.solids, layout.materials, strict=True), start=FIRST_SOLID):
        own = np.flatnonzero(owners == owner)
        normals[:, own], faces[own], local = surface(solid, points[:, own])
        albedo[:, own], gloss[own] = paint(material, local), material.gloss
    return _Samples(depths, owners, normals, faces, albedo, gloss, points)


def _expose(layout: Layout, samples: _Samples, directions: Array) -> Array:
    is_lit = _find_light(layout, samples)
    linear = light_up(layout.light, samples.albedo, samples.normals, directions, is_lit, samples.gloss)
    shown = np.sqrt(np.maximum(haze(layout.light, linear, samples.depths), 0))
    return np.where(samples.owners == SKY, samples.albedo, np.minimum(shown, 1))


def _find_light(layout: Layout, samples: _Samples) -> Array:
    """1 where nothing stands between a surface and the light, 0 in shadows and on faces turned away."""
    towards = np.array(layout.light.towards, np.float32)[:, None]
    faces_light = np.flatnonzero((samples.normals * towards).sum(axis=0) > 0)
    starts = samples.points[:, faces_light] + samples.normals[:, faces_light] * np.float32(SHADOW_OFFSET_M)
    is_free = np.ones(faces_light.shape, np.bool_)
    for solid in layout.solids:
        is_free &= np.isinf(cast(solid, starts, towards, nearest=SHADOW_OFFSET_M))
    is_lit = np.zeros(samples.depths.shape, np.float32)
    is_lit[faces_light] = is_free
    return is_lit


def _to_picture(colours: Array) -> NDArray[np.uint8]:
    return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
