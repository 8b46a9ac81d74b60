import math
from itertools import pairwise

import numpy as np
import pytest

from lavin_dit.data.world.clips import FIRST_CLIP, render_clip, render_moving_scene
from lavin_dit.data.world.furnishing import draw_layout
from lavin_dit.data.world.layout import CLASSES, Layout, World, stand_apart
from lavin_dit.data.world.motion import CAMERA_HEIGHTS_M, FARTHEST_M, MAX_HOP_M, NEAREST_M, move
from lavin_dit.data.world.scenes import FAR_M, GROUND, render, render_scene

HARD = World(difficulty=1.0, figures=True)


def layouts_of(index: int, world: World, count: int) -> list[Layout]:
    number = FIRST_CLIP + index
    return list(move(draw_layout(0, number, world), 0, number, count, difficulty=world.difficulty))


def test_a_clip_depends_on_its_seed_and_index_alone_and_more_frames_only_go_on() -> None:
    later = [render_clip(3, index, 32, num_frames=5) for index in (5, 1)]
    np.testing.assert_array_equal(later[0], render_clip(3, 5, 32, num_frames=5))
    np.testing.assert_array_equal(later[0], render_clip(3, 5, 32, num_frames=9)[:5])
    assert (later[0] != later[1]).any()
    assert (render_clip(4, 5, 32, num_frames=5) != later[0]).any()


@pytest.mark.parametrize("index", range(12))
def test_every_frame_differs_from_the_one_before_and_not_by_much(index: int) -> None:
    clip = render_clip(0, index, 32, num_frames=5).astype(int)
    assert clip.shape == (5, 32, 32, 3)
    changes = [np.abs(after - before).mean() for before, after in pairwise(clip)]
    assert min(changes) > 0
    assert max(changes) < 25


@pytest.mark.parametrize("index", range(4))
def test_every_frame_of_a_hard_world_differs_from_the_one_before_and_not_by_much(index: int) -> None:
    frames = render_moving_scene(0, index, 32, num_frames=5, world=HARD).frames
    changes = [np.abs(after.rgb.astype(int) - before.rgb).mean() for before, after in pairwise(frames)]
    assert min(changes) > 0
    assert max(changes) < 30


def test_the_first_frame_of_a_moving_scene_is_its_layout_at_rest() -> None:
    first = render_moving_scene(0, 3, 32, num_frames=1, world=HARD).frames[0]
    np.testing.assert_array_equal(first.rgb, render(draw_layout(0, FIRST_CLIP + 3, HARD), 32).rgb)


def test_figures_walk_where_they_face_and_keep_their_instance() -> None:
    walked = 0
    for index in range(12):
        layouts = layouts_of(index, HARD, 8)
        for before, after in pairwise(layouts):
            for old, new in zip(before.figures, after.figures, strict=True):
                step = np.array([new.x - old.x, new.z - old.z])
                if step.any():
                    walked += 1
                    assert step @ [math.sin(old.yaw), math.cos(old.yaw)] == pytest.approx(np.linalg.norm(step))
                    assert 0.02 < np.linalg.norm(step) < 0.3
                assert new.phase > old.phase
        assert len({len(layout.solids) for layout in layouts}) == 1
    assert walked > 30
    frames = render_moving_scene(0, 0, 48, num_frames=3, world=HARD).frames
    numbers = [set(np.unique(frame.instances[frame.classes == CLASSES.index("figure")])) for frame in frames]
    assert numbers[0] == numbers[1] == numbers[2]


def test_things_follow_the_ground_and_some_leave_it_for_a_while() -> None:
    rises = []
    for index in range(30):
        for layout in layouts_of(index, HARD, 8):
            rises += [solid.base - layout.foot(solid.x, solid.z, solid.reach) for solid in layout.solids]
            assert all(figure.base == layout.foot(figure.x, figure.z, figure.stance) for figure in layout.figures)
    assert min(rises) == pytest.approx(0, abs=1e-9)
    assert 0.01 < np.mean(np.array(rises) > 0.01) < 0.5
    assert max(rises) <= MAX_HOP_M


def test_no_clip_begins_as_a_still_scene_of_its_number() -> None:
    for index in range(4):
        assert (render_clip(0, index, 32, num_frames=1)[0] != render_scene(0, index, 32).rgb).any()


@pytest.mark.parametrize("world", [World(), HARD])
def test_things_never_meet_and_nobody_leaves_the_scene(world: World) -> None:
    for index in range(15):
        for moved in layouts_of(index, world, 60):
            things = (*moved.solids, *moved.figures)
            for number, thing in enumerate(things):
                assert NEAREST_M <= thing.z <= FARTHEST_M
                assert all(stand_apart(thing, other) for other in things[:number])
            assert CAMERA_HEIGHTS_M[0] <= moved.camera.height <= CAMERA_HEIGHTS_M[1]
            assert math.hypot(moved.camera.x, moved.camera.z) < NEAREST_M - 1


def test_the_ground_of_every_frame_lies_at_height_zero_below_the_camera_of_that_frame() -> None:
    seed, index, size = 0, 2, 48
    scenes = render_moving_scene(seed, index, size, num_frames=9).frames
    layouts = list(move(draw_layout(seed, FIRST_CLIP + index), seed, FIRST_CLIP + index, 9))
    assert layouts[0].camera != layouts[-1].camera
    for layout, scene in zip(layouts, scenes, strict=True):
        reach, pitch = math.tan(layout.camera.field_of_view / 2), layout.camera.pitch
        up = (1 - 2 * (np.arange(size) + 0.5) / size)[:, None] * reach
        heights = layout.camera.height + (up * math.cos(pitch) - math.sin(pitch)) * scene.depth
        is_near_ground = (scene.instances == GROUND) & (scene.depth < FAR_M)
        assert is_near_ground.sum() > 100
        np.testing.assert_allclose(heights[is_near_ground], 0, atol=1e-3)


def test_a_moving_camera_leaves_the_pattern_on_the_ground_where_it_is() -> None:
    """Two frames that see the same point of the ground paint it with the same albedo."""
    seed, index, size = 0, 2, 64
    scenes = render_moving_scene(seed, index, size, num_frames=9).frames
    layouts = list(move(draw_layout(seed, FIRST_CLIP + index), seed, FIRST_CLIP + index, 9))
    assert layouts[0].camera.x != layouts[-1].camera.x
    assert layouts[0].ground.pattern == "checker"
    seen: list[dict[tuple[int, int], np.ndarray]] = []
    for layout, scene in ((layouts[0], scenes[0]), (layouts[-1], scenes[-1])):
        camera, reach = layout.camera, math.tan(layout.camera.field_of_view / 2)
        steps = (2 * (np.arange(size) + 0.5) / size - 1) * reach
        forward = math.cos(camera.pitch) - steps[:, None] * math.sin(camera.pitch)
        x, z = steps[None, :] * scene.depth + camera.x, forward * scene.depth + camera.z
        cells = np.stack([x, z]) / layout.ground.cell + layout.ground.phase
        inner = (scene.instances == GROUND) & (scene.depth < 6) & (np.abs(cells % 1 - 0.5) < 0.3).all(axis=0)
        rows = zip(np.floor(cells[0][inner]).astype(int), np.floor(cells[1][inner]).astype(int), scene.albedo[inner], strict=True)
        seen.append({(column, row): colour for column, row, colour in rows})
    shared = seen[0].keys() & seen[1].keys()
    assert len(shared) >= 6
    assert max(np.abs(seen[0][cell].astype(int) - seen[1][cell]).max() for cell in shared) < 12
