from dataclasses import replace

import numpy as np
import pytest

from lavin_dit.data.world.clips import FIRST_CLIP, MovingScene, render_moving_scene
from lavin_dit.data.world.furnishing import draw_layout
from lavin_dit.data.world.layout import EASY, Layout, World
from lavin_dit.data.world.motion import move
from lavin_dit.data.world.optical_flow import flow_between
from lavin_dit.data.world.scenes import FAR_M, SKY, render_traced

SIZE = 64
HARD = World(difficulty=1.0, figures=True)
MIDDLES = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), axis=-1)


def layouts_of(index: int, world: World, count: int = 2) -> list[Layout]:
    number = FIRST_CLIP + index
    return list(move(draw_layout(0, number, world), 0, number, count, difficulty=world.difficulty))


def moving_scene(index: int, world: World) -> MovingScene:
    return render_moving_scene(0, index, SIZE, num_frames=2, world=world)


def land(scene: MovingScene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns in the second frame where the first frame's pixels arrive, and which of them stay in the picture."""
    columns, rows = np.moveaxis(np.floor(MIDDLES + scene.flows[0]).astype(int), -1, 0)
    stays = (columns >= 0) & (columns < SIZE) & (rows >= 0) & (rows < SIZE)
    return rows, columns, stays


@pytest.mark.parametrize("world", [EASY, HARD])
def test_nothing_flows_in_a_still_world(world: World) -> None:
    layout = layouts_of(0, world)[0]
    _, traces = render_traced(layout, SIZE)
    np.testing.assert_allclose(flow_between(layout, layout, traces, SIZE), 0, atol=1e-4)


def test_a_flow_is_known_for_every_frame_and_more_frames_only_go_on() -> None:
    short, long = (render_moving_scene(0, 1, 32, num_frames=count, world=HARD) for count in (2, 4))
    assert short.flows.shape == (2, 32, 32, 2)
    assert np.isfinite(long.flows).all()
    np.testing.assert_array_equal(short.flows, long.flows[:2])


@pytest.mark.parametrize("world", [EASY, HARD])
@pytest.mark.parametrize("index", range(4))
def test_pixels_arrive_where_the_next_frame_shows_the_same_surface(index: int, world: World) -> None:
    """Except where something has come before them: then what is seen there is nearer."""
    scene = moving_scene(index, world)
    rows, columns, stays = land(scene)
    first, second = scene.frames
    assert stays.mean() > 0.7
    same = second.instances[rows[stays], columns[stays]] == first.instances[stays]
    nearer = second.depth[rows[stays], columns[stays]] < first.depth[stays] + 0.3
    assert same.mean() > 0.9
    assert (same | nearer).mean() > 0.97


@pytest.mark.parametrize("index", range(4))
def test_pixels_keep_their_albedo_on_their_way(index: int) -> None:
    scene = moving_scene(index, HARD)
    rows, columns, stays = land(scene)
    first, second = scene.frames
    stays &= (first.depth < 12) & (first.instances != SKY)
    same = np.zeros_like(stays)
    same[stays] = second.instances[rows[stays], columns[stays]] == first.instances[stays]
    change = np.abs(second.albedo[rows[same], columns[same]].astype(int) - first.albedo[same])
    unmoved = np.abs(second.albedo[same].astype(int) - first.albedo[same])
    assert np.median(change) <= 6
    assert change.mean() <= unmoved.mean() + 1


def test_a_turning_camera_moves_the_sky_and_a_travelling_one_does_not() -> None:
    layout = layouts_of(2, EASY)[0]
    scene, traces = render_traced(layout, SIZE)
    sky = scene.instances == SKY
    travelled = replace(layout, camera=replace(layout.camera, x=0.2, z=0.3))
    assert sky.sum() > 100
    np.testing.assert_allclose(flow_between(layout, travelled, traces, SIZE)[sky], 0, atol=1e-5)
    tilted = replace(layout, camera=replace(layout.camera, pitch=layout.camera.pitch + 0.02))
    flow = flow_between(layout, tilted, traces, SIZE)[sky]
    assert (flow[:, 1] < -0.5).all()


def test_a_known_point_of_the_ground_moves_as_perspective_says() -> None:
    """A level step forwards of a level camera pushes each point away from the middle by the ratio of its depths."""
    layout = replace(layouts_of(2, EASY)[0], solids=(), materials=())
    layout = replace(layout, camera=replace(layout.camera, pitch=0.0))
    scene, traces = render_traced(layout, SIZE)
    flow = flow_between(layout, replace(layout, camera=replace(layout.camera, z=0.25)), traces, SIZE)
    near = scene.depth < FAR_M
    grows = scene.depth / (scene.depth - 0.25)
    expected = (MIDDLES - SIZE / 2) * (grows[:, :, None] - 1)
    np.testing.assert_allclose(flow[near], expected[near], atol=2e-3)


def test_a_solid_that_turns_and_glides_takes_its_pixels_with_it() -> None:
    layout = layouts_of(0, EASY)[0]
    solid = layout.solids[0]
    moved = replace(layout, solids=(replace(solid, x=solid.x + 0.2, yaw=solid.yaw + 0.1), *layout.solids[1:]))
    scene, traces = render_traced(layout, SIZE)
    flow = flow_between(layout, moved, traces, SIZE)
    own = scene.instances == 2
    assert own.any()
    assert np.abs(flow[own]).max(axis=-1).min() > 0
    np.testing.assert_allclose(flow[~own], 0, atol=1e-4)
