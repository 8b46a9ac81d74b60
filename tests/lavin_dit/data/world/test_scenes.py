import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lavin_dit.data.world.clips import render_moving_scene
from lavin_dit.data.world.figures import NUM_JOINTS
from lavin_dit.data.world.furnishing import draw_layout
from lavin_dit.data.world.layout import CLASSES, EASY_SHAPES, SHAPES, Lamp, Layout, World
from lavin_dit.data.world.scenes import FAR_M, FIRST_SOLID, GROUND, SKY, Scene, render, render_scene

SIZE = 64
HARD, HARD_WITH_FIGURES = World(difficulty=1.0), World(difficulty=1.0, figures=True)
WORLDS = [World(), World(figures=True), World(difficulty=0.5), HARD_WITH_FIGURES]
RECORDED = Path(__file__).parent / "easy_world.npz"
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


def assert_equal(a: Scene, b: Scene) -> None:
    for field in Scene.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def assert_as_recorded(scene: Scene, name: str) -> None:
    """As it was when the first models were trained; another machine's roots and sines may round otherwise."""
    with np.load(RECORDED) as file:
        recorded: dict[str, NDArray[np.generic]] = {key.rpartition(".")[2]: file[key] for key in file if key.startswith(f"{name}.")}
    for field in ("instances", "classes", "faces"):
        assert (getattr(scene, field) != recorded[field]).mean() < 1e-3
    for field in ("rgb", "albedo"):
        change = np.abs(getattr(scene, field).astype(int) - recorded[field].astype(int))
        assert (change > 1).mean() < 1e-3
    assert np.isclose(scene.depth, recorded["depth"].astype(np.float32), rtol=1e-3).mean() > 0.999
    assert (np.abs(scene.normals - recorded["normals"].astype(np.float32) / 127) < 0.01).mean() > 0.999


@pytest.mark.parametrize("index", [0, 1, 4])
def test_the_easy_world_is_the_one_that_models_have_learned(index: int) -> None:
    assert_as_recorded(render_scene(7, index, 64), f"scene-{index}")


@pytest.mark.parametrize("frame", [0, 8])
def test_the_easy_world_moves_as_models_have_learned(frame: int) -> None:
    assert_as_recorded(render_moving_scene(5, 1, 48, num_frames=frame + 1).frames[frame], f"clip-1-{frame}")


@pytest.mark.parametrize("world", WORLDS)
def test_a_scene_depends_on_its_seed_and_index_and_world_alone(world: World) -> None:
    later = [render_scene(3, index, 32, world=world) for index in (5, 1)]
    again = render_scene(3, 5, 32, world=world)
    assert_equal(later[0], again)
    assert (later[0].rgb != later[1].rgb).any()
    assert (render_scene(4, 5, 32, world=world).rgb != again.rgb).any()


@pytest.mark.parametrize("world", WORLDS)
def test_maps_have_the_types_and_ranges_that_they_promise(world: World) -> None:
    for index in range(6):
        scene = render_scene(6, index, 48, world=world)
        for picture in (scene.rgb, scene.shadowless, scene.albedo):
            assert picture.shape == (48, 48, 3)
            assert picture.dtype == np.uint8
        assert scene.depth.dtype == scene.normals.dtype == scene.joints.dtype == np.float32
        assert 0 < scene.depth.min() <= scene.depth.max() <= FAR_M
        assert scene.classes.max() < len(CLASSES)
        lengths = np.linalg.norm(scene.normals, axis=-1)
        np.testing.assert_allclose(lengths, scene.instances != SKY, atol=1e-4)
        assert len(scene.joints) >= world.figures


def test_a_scene_without_figures_has_no_joints() -> None:
    assert render_scene(3, 0, 16).joints.shape == (0, NUM_JOINTS, 3)


def test_difficulty_brings_what_the_easy_world_lacks() -> None:
    easy, hard = ([draw_layout(2, index, world) for index in range(60)] for world in (World(), HARD))
    assert not any(layout.terrain or layout.lamps for layout in easy)
    assert sum(layout.terrain is not None for layout in hard) > 30
    assert sum(len(layout.lamps) for layout in hard) > 30
    assert np.mean([len(layout.solids) for layout in hard]) > np.mean([len(layout.solids) for layout in easy]) + 1
    shapes = [{solid.shape for layout in layouts for solid in layout.solids} for layouts in (easy, hard)]
    assert shapes == [set(EASY_SHAPES), set(SHAPES)]
    patterns = {material.pattern for layout in hard for material in (*layout.materials, layout.ground)}
    assert {"noise", "stripes", "gradient", "checker"} <= patterns


def test_a_little_difficulty_changes_little() -> None:
    for index in range(10):
        easy, other = draw_layout(2, index), draw_layout(2, index, World(difficulty=1e-6))
        assert other.camera.height == pytest.approx(easy.camera.height, abs=1e-4)
        assert len(other.solids) == pytest.approx(len(easy.solids), abs=3)


@pytest.mark.parametrize("world", WORLDS)
def test_a_picture_without_its_shadows_is_nowhere_darker_and_elsewhere_the_same(world: World) -> None:
    darker = 0.0
    for index in range(4):
        scene = render_scene(2, index, SIZE, world=world)
        change = scene.shadowless.astype(int) - scene.rgb
        assert change.min() >= 0
        assert (change == 0).all(axis=-1).mean() > 0.5
        assert (change[scene.instances == SKY] <= 8).mean() > 0.95
        darker += (change > 15).any(axis=-1).mean()
    assert darker > 0.08


def test_without_solids_there_are_no_shadows_to_take_away() -> None:
    scene = render(replace(draw_layout(2, 0), solids=(), materials=()), SIZE)
    np.testing.assert_array_equal(scene.rgb, scene.shadowless)


def test_every_lamp_throws_a_shadow_of_its_own() -> None:
    layout = replace(draw_layout(0, 2), lamps=())
    lamp = Lamp((-layout.light.towards[0], layout.light.towards[1], -layout.light.towards[2]), (1.0, 1.0, 1.0), 0.3)
    one, two = render(layout, SIZE), render(replace(layout, lamps=(lamp,)), SIZE)
    shaded = [(scene.shadowless.astype(int) - scene.rgb > 4).any(axis=-1) for scene in (one, two)]
    assert (two.rgb.astype(int) - one.rgb).min() >= 0
    assert (shaded[1] & ~shaded[0]).mean() > 0.02


@pytest.mark.parametrize("index", range(3))
def test_pixels_that_are_sampled_once_look_almost_as_if_they_were_sampled_everywhere(index: int) -> None:
    layout = draw_layout(2, index, HARD_WITH_FIGURES)
    assert not layout.is_sampled_everywhere
    sparing, full = (render(replace(layout, is_sampled_everywhere=everywhere), SIZE) for everywhere in (False, True))
    change = np.abs(sparing.rgb.astype(int) - full.rgb)
    assert change.mean() < 0.7
    assert np.quantile(change, 0.99) <= 8
    np.testing.assert_array_equal(sparing.depth, full.depth)


def test_every_layout_has_solids_that_stand_apart() -> None:
    for index in range(200):
        solids = draw_layout(0, index).solids
        assert 2 <= len(solids) <= 5
        for number, a in enumerate(solids):
            assert all(math.hypot(a.x - b.x, a.z - b.z) > max(a.half[0], a.half[2], b.half[0], b.half[2]) for b in solids[:number])


def test_every_class_is_common_and_objects_are_large_enough_to_see() -> None:
    scenes = [render_scene(0, index, 32) for index in range(60)]
    for name in ("sky", "ground", *EASY_SHAPES):
        assert sum((scene.classes == CLASS[name]).any() for scene in scenes) >= 20
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


@pytest.mark.parametrize("world", [World(), HARD_WITH_FIGURES])
@pytest.mark.parametrize("index", range(6))
def test_normals_agree_with_the_slope_of_the_depth(index: int, world: World) -> None:
    layout = draw_layout(2, index, world)
    scene = render(layout, SIZE)
    points = camera_points(layout, scene)
    surfaces = scene.instances.astype(int) * 256 + scene.faces
    right, down = points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1]
    slope = np.cross(down, right)
    slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
    is_one_surface = (surfaces[:-1, :-1] == surfaces[:-1, 1:]) & (surfaces[:-1, :-1] == surfaces[1:, :-1])
    flat = [CLASS["box"]] + [CLASS["ground"]] * (layout.terrain is None)
    is_flat = np.isin(scene.classes[:-1, :-1], flat) & (scene.depth[:-1, :-1] < 15) & is_one_surface
    agreement = (slope * scene.normals[:-1, :-1]).sum(axis=-1)
    assert is_flat.sum() > 100 or layout.terrain is not None
    assert agreement[is_flat].min(initial=1) > 0.999
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


def test_every_class_of_the_hard_world_is_common_and_figures_are_large_enough_to_see() -> None:
    scenes = [render_scene(0, index, 32, world=HARD_WITH_FIGURES) for index in range(40)]
    for name in CLASSES:
        assert sum((scene.classes == CLASS[name]).any() for scene in scenes) >= 12
    assert np.mean([(scene.classes == CLASS["figure"]).mean() for scene in scenes]) > 0.02


@pytest.mark.parametrize("world", WORLDS)
def test_maps_of_a_finer_picture_say_the_same(world: World) -> None:
    coarse, fine = render_scene(0, 3, 32, world=world), render_scene(0, 3, 96, world=world)
    np.testing.assert_array_equal(coarse.instances, fine.instances[1::3, 1::3])
    np.testing.assert_allclose(coarse.depth, fine.depth[1::3, 1::3], rtol=2e-3)
    np.testing.assert_allclose(coarse.joints[:, :, :2] * 3, fine.joints[:, :, :2], atol=1e-3)
