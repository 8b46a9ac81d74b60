import math

import numpy as np
import pytest

from lavin_dit.data.world.furnishing import LOWEST_LIGHT, draw_layout
from lavin_dit.data.world.layout import Layout, World
from lavin_dit.data.world.scenes import FAR_M
from lavin_dit.data.world.terrain import Terrain, Wave

SIZE = 48
NO_LIMIT = np.full(SIZE * SIZE, np.inf, np.float32)


def rolling_layouts(count: int) -> list[Layout]:
    layouts = (draw_layout(5, index, World(difficulty=1.0)) for index in range(4 * count))
    return [layout for layout in layouts if layout.terrain is not None][:count]


def pixel_rays(layout: Layout) -> np.ndarray:
    rows, columns = np.divmod(np.arange(SIZE * SIZE), SIZE)
    return layout.camera.rays(columns + 0.5, rows + 0.5, SIZE)


def heights_at(terrain: Terrain, points: np.ndarray) -> np.ndarray:
    return np.array([terrain.height(x, z) for x, _, z in points.T.tolist()])


def test_rays_end_on_the_ground_and_nowhere_go_below_it() -> None:
    for layout in rolling_layouts(3):
        assert layout.terrain is not None
        directions = pixel_rays(layout)
        hits = layout.terrain.cast(layout.camera.eye, directions, NO_LIMIT)
        seen = np.flatnonzero(hits < FAR_M)
        assert seen.size > 0.2 * hits.size
        ends = layout.camera.eye + directions[:, seen] * hits[seen]
        apart = np.abs(ends[1] - heights_at(layout.terrain, ends))
        assert (apart < 1e-3).mean() > 0.999
        shares = np.random.default_rng(0).uniform(0.2, 0.98, seen.size)
        on_the_way = layout.camera.eye + directions[:, seen] * (hits[seen] * shares)
        assert (on_the_way[1] > heights_at(layout.terrain, on_the_way) - 5e-3).mean() > 0.99


def test_rays_that_end_above_all_waves_meet_no_ground_and_the_others_meet_it_where_they_did() -> None:
    layout = rolling_layouts(1)[0]
    assert layout.terrain is not None
    directions, eye = pixel_rays(layout), layout.camera.eye
    hits = layout.terrain.cast(eye, directions, NO_LIMIT)
    limits = hits * np.random.default_rng(0).uniform(0.5, 1.1, hits.size).astype(np.float32)
    limited = layout.terrain.cast(eye, directions, limits)
    is_above = np.isfinite(hits) & (eye[1] + directions[1] * limits > layout.terrain.top)
    assert 0.1 < is_above.mean() < 0.9
    assert np.isinf(limited[is_above]).all()
    np.testing.assert_array_equal(limited[~is_above], hits[~is_above])


def test_rays_that_go_up_meet_no_ground() -> None:
    layout = rolling_layouts(1)[0]
    assert layout.terrain is not None
    directions = pixel_rays(layout)
    hits = layout.terrain.cast(layout.camera.eye, directions, NO_LIMIT)
    np.testing.assert_array_equal(np.isinf(hits), directions[1] >= -1e-5)


def test_normals_are_square_to_the_slopes() -> None:
    terrain = Terrain((Wave(0.2, 0.1, 0.15, 0.3), Wave(0.05, -0.2, 0.3, 0.1)))
    x, z = np.random.default_rng(0).uniform(-8, 8, (2, 200))
    points = np.stack([x, [terrain.height(*place) for place in zip(x, z, strict=True)], z]).astype(np.float32)
    normals = terrain.normals(points, np.ones(200, np.float32))
    step = 1e-4
    for axis, (dx, dz) in enumerate(((step, 0.0), (0.0, step))):
        rise = np.array([terrain.height(a + dx, b + dz) - terrain.height(a - dx, b - dz) for a, b in zip(x, z, strict=True)]) / (2 * step)
        np.testing.assert_allclose(normals[0 if axis == 0 else 2] + rise * normals[1], 0, atol=2e-3)
    np.testing.assert_allclose((normals**2).sum(axis=0), 1, atol=1e-5)


def test_no_slope_is_steeper_than_the_lowest_light() -> None:
    for layout in rolling_layouts(20):
        assert layout.terrain is not None
        assert layout.terrain.steepest < math.tan(LOWEST_LIGHT)
        assert min(lamp.towards[1] for lamp in layout.all_lamps) >= math.sin(LOWEST_LIGHT) - 1e-9
        assert layout.camera.height > layout.terrain.top + 0.3


@pytest.mark.parametrize("radius", [0.2, 1.0])
def test_what_stands_on_the_ground_leaves_no_gap(radius: float) -> None:
    for layout in rolling_layouts(5):
        assert layout.terrain is not None
        foot = layout.foot(1.0, 5.0, radius)
        turns = np.linspace(0, 2 * math.pi, 40)
        rim = [layout.terrain.height(1 + radius * math.cos(turn), 5 + radius * math.sin(turn)) for turn in turns]
        assert min(rim) >= foot
        assert foot > layout.terrain.height(1.0, 5.0) - 1.5 * radius * layout.terrain.steepest
