import math
from dataclasses import replace

import numpy as np
import pytest

from lavin_dit.data.layout import CLASSES, Layout, draw_layout
from lavin_dit.data.scenes import FAR_M, FIRST_SOLID, GROUND, SKY, Scene, render, render_scene

SIZE = 64
CLASS = {name: number for number, name in enumerate(CLASSES)}


def camera_points(layout: Layout, scene: Scene) -> np.ndarray:
    """Where each pixel's centre lies in camera space (x right, y up, z towards the viewer), from its depth alone."""
    reach = math.tan(layout.camera.field_of_view / 2)
    steps = (2 * (np.arange(SIZE) + 0.5) / SIZE - 1) * reach
    depth = scene.depth.astype(np.float64)
    return np.stack([steps[None, :] * depth, -steps[:, None] * depth, -depth], axis=-1)


def world_points(layout: Layout, scene: Scene) -> np.ndarray:
    x, y, z = np.moveaxis(camera_points(layout, scene), -1, 0)
    cosine, sine = math.cos(layout.camera.pitch), math.sin(layout.camera.pitch)
    return np.stack([x, y * cosine + z * sine + layout.camera.height, y * sine - z * cosine], axis=-1)


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    later = [render_scene(3, index, 32) for index in (5, 1)]
    again = render_scene(3, 5, 32)
    for field in Scene.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(later[0], field), getattr(again, field))
    assert (later[0].rgb != later[1].rgb).any()
    assert (render_scene(4, 5, 32).rgb != again.rgb).any()


def test_every_layout_has_solids_that_stand_apart() -> None:
    for index in range(200):
        solids = draw_layout(0, index).solids
        assert 2 <= len(solids) <= 5
        for number, a in enumerate(solids):
            assert all(math.hypot(a.x - b.x, a.z - b.z) > max(a.half[0], a.half[2], b.half[0], b.half[2]) for b in solids[:number])


def test_every_class_is_common_and_objects_are_large_enough_to_see() -> None:
    scenes = [render_scene(0, index, 32) for index in range(60)]
    for number in range(len(CLASSES)):
        assert sum((scene.classes == number).any() for scene in scenes) >= 20
    assert np.mean([(scene.instances >= FIRST_SOLID).mean() for scene in scenes]) > 0.12


@pytest.mark.parametrize("index", range(6))
def test_depth_puts_the_ground_at_height_zero_and_spheres_on_their_surface(index: int) -> None:
    layout = draw_layout(1, index)
    scene = render(layout, SIZE)
    points = world_points(layout, scene)
    is_near_ground = (scene.instances == GROUND) & (scene.depth < FAR_M)
    np.testing.assert_allclose(points[is_near_ground][:, 1], 0, atol=1e-3)
    for owner, solid in enumerate(layout.solids, start=FIRST_SOLID):
        own = points[scene.instances == owner] - (solid.x, solid.half[1], solid.z)
        if solid.shape == "sphere" and len(own):
            np.testing.assert_allclose(np.linalg.norm(own, axis=-1), solid.half[0], rtol=2e-3)


@pytest.mark.parametrize("index", range(6))
def test_normals_agree_with_the_slope_of_the_depth(index: int) -> None:
    layout = draw_layout(2, index)
    scene = render(layout, SIZE)
    points = camera_points(layout, scene)
    surfaces = scene.instances.astype(int) * 256 + scene.faces
    right, down = points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1]
    slope = np.cross(down, right)
    slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
    is_one_surface = (surfaces[:-1, :-1] == surfaces[:-1, 1:]) & (surfaces[:-1, :-1] == surfaces[1:, :-1])
    is_flat = np.isin(scene.classes[:-1, :-1], (CLASS["ground"], CLASS["box"])) & (scene.depth[:-1, :-1] < 15) & is_one_surface
    agreement = (slope * scene.normals[:-1, :-1]).sum(axis=-1)
    assert is_flat.sum() > 100
    assert agreement[is_flat].min() > 0.999
    is_curved = is_one_surface & (scene.classes[:-1, :-1] >= CLASS["sphere"])
    assert np.median(agreement[is_curved]) > 0.98


def test_the_sky_has_no_normals_and_the_farthest_depth_and_surfaces_have_unit_normals_towards_the_camera() -> None:
    layout = draw_layout(0, 1)
    scene = render(layout, SIZE)
    sky = scene.instances == SKY
    assert sky.any()
    assert (scene.depth[sky] == FAR_M).all()
    assert (scene.normals[sky] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(scene.normals[~sky], axis=-1), 1, atol=1e-5)
    towards_eye = -camera_points(layout, scene)
    assert ((scene.normals * towards_eye).sum(axis=-1)[~sky] > -1e-2).all()


def test_classes_are_those_of_the_instances() -> None:
    layout = draw_layout(0, 2)
    scene = render(layout, SIZE)
    expected = [CLASS["sky"], CLASS["ground"], *(CLASS[solid.shape] for solid in layout.solids)]
    np.testing.assert_array_equal(scene.classes, np.array(expected)[scene.instances])


def test_a_solid_only_darkens_the_ground_around_it() -> None:
    layout = draw_layout(0, 2)
    full, bare = render(layout, SIZE), render(replace(layout, solids=(), materials=()), SIZE)
    is_ground = full.instances == GROUND
    inner = is_ground[1:-1, 1:-1] & is_ground[:-2, 1:-1] & is_ground[2:, 1:-1] & is_ground[1:-1, :-2] & is_ground[1:-1, 2:]
    change = full.rgb.astype(int)[1:-1, 1:-1][inner] - bare.rgb.astype(int)[1:-1, 1:-1][inner]
    assert change.max() <= 0
    assert (change < -15).any(axis=-1).mean() > 0.02
    np.testing.assert_array_equal(full.albedo[is_ground], bare.albedo[is_ground])


def test_maps_of_a_finer_picture_say_the_same() -> None:
    coarse, fine = render_scene(0, 3, 32), render_scene(0, 3, 96)
    np.testing.assert_array_equal(coarse.instances, fine.instances[1::3, 1::3])
    np.testing.assert_allclose(coarse.depth, fine.depth[1::3, 1::3], rtol=1e-3)
