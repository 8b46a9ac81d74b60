import math

import numpy as np
import pytest

from lavin_dit.data.world.geometry import Primitive, Primitives, gather, gather_rods, join
from lavin_dit.data.world.shapes import SHAPES

HALVES = {"sphere": (0.9, 0.9, 0.9), "torus": (0.9, 0.9, 0.25), "rod": (0.4, 1.1, 0.4)}


def turn_of(yaw: float, tilt: float = 0.0) -> np.ndarray:
    cosine, sine = math.cos(yaw), math.sin(yaw)
    level = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    cosine, sine = math.cos(tilt), math.sin(tilt)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ level


def primitive_of(shape: str) -> Primitive:
    """Only what stands on the ground is upright; limbs are not."""
    half = HALVES.get(shape, (0.8, 1.2, 0.6))
    return Primitive(shape, (0.4, half[1], 5.0), half, turn_of(0.7, 0.5 if shape == "rod" else 0.0))


def gathered(primitive: Primitive) -> Primitives:
    if primitive.shape != "rod":
        return gather([primitive])
    radius, half, _ = primitive.half
    centre, turn = np.array(primitive.centre)[:, None], primitive.turn[:, :, None]
    return gather_rods(centre, turn, radii=np.array([radius]), lengths=np.array([half - radius]), faces=np.zeros(1, np.uint8))


def cast(primitive: Primitive, origins: np.ndarray, directions: np.ndarray, *, nearest: float) -> np.ndarray:
    count = max(origins.shape[1], directions.shape[1])
    rays = (vectors[:, :, None] if vectors.shape[1] < count else vectors for vectors in (origins, directions))
    return gathered(primitive).cast(np.array([0]), np.zeros(count, np.intp), *rays, nearest=nearest)


def random_rays(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    eye = np.array([[0.0], [1.7], [0.0]], np.float32)
    aims = np.stack([random.uniform(-1.5, 2.2, count), random.uniform(-0.5, 3, count), np.full(count, 5.0)]).astype(np.float32)
    return eye, aims - eye


def is_inside(primitive: Primitive, points: np.ndarray, margin: float) -> np.ndarray:
    """Whether points lie in a shape that is larger by `margin`, found without any of the shape's own formulas."""
    x, y, z = own = primitive.turn @ (points - np.array(primitive.centre)[:, None])
    a, b, c = np.array(primitive.half)
    radial = np.hypot(x / a, z / c) / margin
    match primitive.shape:
        case "sphere":
            return np.linalg.norm(own, axis=0) <= a * margin
        case "box":
            return (np.abs(own) <= np.array(primitive.half)[:, None] * margin).all(axis=0)
        case "cylinder":
            return (radial <= 1) & (np.abs(y) <= b * margin)
        case "cone":
            return (radial <= (1 - y / b / margin) / 2) & (np.abs(y) <= b * margin)
        case "torus":
            return np.hypot(np.hypot(x, y) - (a - c), z) <= c * margin
        case _:
            beyond = y - np.clip(y, a - b, b - a)
            return np.sqrt(x**2 + beyond**2 + z**2) <= a * margin


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_enter_a_shape_where_its_inside_begins_and_miss_where_it_has_none(shape: str) -> None:
    primitive = primitive_of(shape)
    eye, directions = random_rays()
    hits = cast(primitive, eye, directions, nearest=0.05)
    steps = np.linspace(0.5, 1.5, 1001)
    walked = np.stack([is_inside(primitive, eye + directions * step, 0.98) for step in steps])
    first = np.where(walked.any(axis=0), steps[walked.argmax(axis=0)], np.inf)
    entered = np.isfinite(first)
    assert entered.sum() > 200
    assert (hits[entered] <= first[entered] + 2e-3).all()
    assert np.isinf(hits[~entered]).sum() > 200
    points = eye + directions * np.where(np.isfinite(hits), hits, 0)
    points = points[:, np.isfinite(hits)]
    assert is_inside(primitive, points, 1.001 if shape not in ("cone", "torus") else 1.02).mean() > 0.99
    assert not is_inside(primitive, points, 0.99 if shape != "cone" else 0.95).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_have_unit_length_and_face_the_eye_that_sees_them(shape: str) -> None:
    eye, directions = random_rays()
    hits = cast(primitive_of(shape), eye, directions, nearest=0.05)
    seen = np.isfinite(hits)
    which = np.zeros(int(seen.sum()), np.intp)
    normals, _, _ = gathered(primitive_of(shape)).surface(which, (eye + directions * np.where(seen, hits, 0))[:, seen])
    np.testing.assert_allclose((normals**2).sum(axis=0), 1, atol=1e-5)
    assert np.quantile((normals * directions[:, seen]).sum(axis=0), 0.995) < 1e-2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hit_does_not_depend_on_the_length_of_the_direction(shape: str) -> None:
    eye, directions = random_rays(500)
    once = cast(primitive_of(shape), eye, directions, nearest=0.0)
    twice = cast(primitive_of(shape), eye, 2 * directions, nearest=0.0)
    np.testing.assert_allclose(once, 2 * twice, rtol=1e-3 if shape == "torus" else 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_turning_and_moving_a_shape_with_its_rays_changes_nothing(shape: str) -> None:
    eye, directions = random_rays(500)
    half = HALVES.get(shape, (0.7, 0.7, 0.7))
    turned, still = (Primitive(shape, (0.0, half[1], 0.0), half, turn_of(yaw)) for yaw in (0.6, 0.0))
    rotation = turn_of(0.6).astype(np.float32)
    moved = eye - np.array([[0.0], [0.0], [5.0]], np.float32)
    a = cast(turned, moved, directions, nearest=0.0)
    b = cast(still, rotation @ moved, rotation @ directions, nearest=0.0)
    both = np.isfinite(a) & np.isfinite(b)
    assert both.sum() > 30
    assert (np.isfinite(a) != np.isfinite(b)).mean() < 0.01
    np.testing.assert_allclose(a[both], b[both], rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_that_share_a_direction_hit_as_rays_that_share_an_origin(shape: str) -> None:
    primitive = primitive_of(shape)
    down = np.array([[0.0], [-1.0], [0.0]], np.float32)
    starts = np.array([[0.5, 3.0], [9.0, 9.0], [5.1, 5.0]], np.float32)
    above, beside = cast(primitive, starts, down, nearest=1e-3)
    assert above == pytest.approx(cast(primitive, starts[:, :1], down, nearest=1e-3)[0])
    assert 9.0 - 2 * primitive.half[1] < above < 9.0
    assert np.isinf(beside)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_lies_behind_the_start_is_not_hit(shape: str) -> None:
    eye, directions = random_rays(500)
    assert np.isinf(cast(primitive_of(shape), eye, -directions, nearest=1e-3)).all()


def test_many_primitives_are_hit_as_each_alone() -> None:
    eye, directions = random_rays(900)
    primitives = [primitive_of(shape) for shape in SHAPES]
    parts, counts = np.arange(len(SHAPES)), np.array([900, 0, 30, 200, 1, 500])
    rays = np.concatenate([np.arange(count) for count in counts])
    primitives_together = join([gather(primitives[:-1]), gathered(primitives[-1])])
    together = primitives_together.cast(parts, parts.repeat(counts), eye[:, :, None], directions[:, rays], nearest=0.05)
    apart = [cast(one, eye, directions[:, :count], nearest=0.05) for one, count in zip(primitives, counts, strict=True) if count]
    np.testing.assert_array_equal(together, np.concatenate(apart))
