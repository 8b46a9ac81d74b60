import math

import numpy as np
import pytest

from lavin_dit.data.geometry import INTERSECTIONS, Solid, cast, surface

SHAPES = tuple(INTERSECTIONS)


def solid_of(shape: str) -> Solid:
    return Solid(shape, x=0.4, z=5.0, half=(0.9, 0.9, 0.9) if shape == "sphere" else (0.8, 1.2, 0.6), yaw=0.7)


def random_rays(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    eye = np.array([[0.0], [1.7], [0.0]], np.float32)
    aims = np.stack([random.uniform(-1.5, 2.2, count), random.uniform(-0.5, 3, count), np.full(count, 5.0)]).astype(np.float32)
    return eye, aims - eye


def is_inside(shape: str, unit: np.ndarray, margin: float) -> np.ndarray:
    x, y, z = unit / margin
    radial = np.hypot(x, z)
    return {
        "sphere": np.sqrt(radial**2 + y**2) <= 1,
        "box": np.abs(unit / margin).max(axis=0) <= 1,
        "cylinder": (radial <= 1) & (np.abs(y) <= 1),
        "cone": (radial <= (1 - y) / 2) & (np.abs(y) <= 1),
    }[shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_enter_a_solid_where_its_inside_begins_and_miss_where_it_has_none(shape: str) -> None:
    solid = solid_of(shape)
    eye, directions = random_rays()
    hits = cast(solid, eye, directions, nearest=0.05)
    steps = np.linspace(0.5, 1.5, 1001, dtype=np.float32)
    walked = np.stack([is_inside(shape, solid.to_unit(eye + directions * step, are_points=True), 0.98) for step in steps])
    first = np.where(walked.any(axis=0), steps[walked.argmax(axis=0)], np.inf)
    entered = np.isfinite(first)
    assert entered.sum() > 200
    assert (hits[entered] <= first[entered] + 1e-3).all()
    assert np.isinf(hits[~entered]).sum() > 200
    points = solid.to_unit((eye + directions * hits)[:, np.isfinite(hits)], are_points=True)
    assert is_inside(shape, points, 1.001 if shape != "cone" else 1.0005).mean() > 0.99
    assert not is_inside(shape, points, 0.99 if shape != "cone" else 0.95).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_have_unit_length_and_face_the_eye_that_sees_them(shape: str) -> None:
    solid = solid_of(shape)
    eye, directions = random_rays()
    hits = cast(solid, eye, directions, nearest=0.05)
    seen = np.isfinite(hits)
    normals, _, _ = surface(solid, (eye + directions * np.where(seen, hits, 0))[:, seen])
    np.testing.assert_allclose((normals**2).sum(axis=0), 1, atol=1e-5)
    assert ((normals * directions[:, seen]).sum(axis=0) < 1e-2).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hit_does_not_depend_on_the_length_of_the_direction(shape: str) -> None:
    eye, directions = random_rays(500)
    once = cast(solid_of(shape), eye, directions, nearest=0.0)
    twice = cast(solid_of(shape), eye, 2 * directions, nearest=0.0)
    np.testing.assert_allclose(once, 2 * twice, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_turning_and_moving_a_solid_with_its_rays_changes_nothing(shape: str) -> None:
    eye, directions = random_rays(500)
    turned = Solid(shape, 0.0, 0.0, (0.7, 0.7, 0.7), yaw=0.6)
    still = Solid(shape, 0.0, 0.0, (0.7, 0.7, 0.7), yaw=0.0)
    cosine, sine = math.cos(0.6), math.sin(0.6)
    rotation = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]], np.float32)
    moved = eye - np.array([[0.0], [0.0], [5.0]], np.float32)
    a = cast(turned, moved, directions, nearest=0.0)
    b = cast(still, rotation @ moved, rotation @ directions, nearest=0.0)
    both = np.isfinite(a) & np.isfinite(b)
    assert (np.isfinite(a) != np.isfinite(b)).mean() < 0.01
    np.testing.assert_allclose(a[both], b[both], rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_that_share_a_direction_hit_as_rays_that_share_an_origin(shape: str) -> None:
    solid = solid_of(shape)
    down = np.array([[0.0], [-1.0], [0.0]], np.float32)
    starts = np.array([[0.5, 3.0], [9.0, 9.0], [5.1, 5.0]], np.float32)
    above, beside = cast(solid, starts, down, nearest=1e-3)
    assert above == cast(solid, starts[:, :1], down, nearest=1e-3)[0]
    assert 9.0 - 2 * solid.half[1] < above < 9.0
    assert np.isinf(beside)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_lies_behind_the_start_is_not_hit(shape: str) -> None:
    eye, directions = random_rays(500)
    assert np.isinf(cast(solid_of(shape), eye, -directions, nearest=1e-3)).all()
