import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import label

from lavin_dit.data.degradations import blurring, holes, reduction, sensors, weather
from lavin_dit.data.degradations.light import to_light, to_picture
from lavin_dit.data.world.scenes import render_scene

OF_THE_DEMO = (reduction.remove_colour, holes.cut_holes, sensors.add_noise, blurring.blur, reduction.shrink)
WEATHER = (weather.add_haze, weather.add_rain, weather.add_snow)
DARK = (sensors.darken, sensors.keep_one_colour)
ALL = (*OF_THE_DEMO, *WEATHER, *DARK, blurring.shake, reduction.compress)
Degrade = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], np.ndarray]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def clean(size: int = 64, index: int = 0) -> np.ndarray:
    return render_scene(0, index, size).rgb


def flat(level: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a.astype(float) - b) / 255).mean()))


@pytest.mark.parametrize("degrade", ALL)
def test_equal_generators_spoil_equally_and_leave_the_clean_picture_alone(degrade: Degrade) -> None:
    scene = render_scene(0, 0, 64)
    before = scene.rgb.copy(), scene.depth.copy()
    spoilt = degrade(scene.rgb, scene.depth, rng())
    np.testing.assert_array_equal(spoilt, degrade(scene.rgb, scene.depth, rng()))
    np.testing.assert_array_equal(scene.rgb, before[0])
    np.testing.assert_array_equal(scene.depth, before[1])
    assert spoilt.dtype == np.uint8
    assert spoilt.shape == scene.rgb.shape


@pytest.mark.parametrize("degrade", ALL)
@pytest.mark.parametrize("size", [(40, 72), (33, 17), (8, 8)])
def test_photographs_of_any_shape_are_spoilt_too(degrade: Degrade, size: tuple[int, int]) -> None:
    photo = rng().integers(0, 256, (*size, 3)).astype(np.uint8)
    spoilt = degrade(photo, None, rng())
    assert spoilt.shape == photo.shape
    assert (spoilt != photo).any()


@pytest.mark.parametrize("degrade", ALL)
def test_the_problem_is_real_a_spoilt_picture_is_far_from_the_clean_one(degrade: Degrade) -> None:
    scenes = [render_scene(0, index, 64) for index in range(10)]
    spoilt = [psnr(degrade(scene.rgb, scene.depth, rng(index)), scene.rgb) for index, scene in enumerate(scenes)]
    assert (5 if degrade in DARK else 10) < np.mean(spoilt) < 27


@pytest.mark.parametrize("degrade", [each for each in ALL if each not in WEATHER])
def test_only_the_weather_depends_on_depth(degrade: Degrade) -> None:
    scene = render_scene(0, 1, 64)
    np.testing.assert_array_equal(degrade(scene.rgb, scene.depth, rng()), degrade(scene.rgb, None, rng()))


@pytest.mark.parametrize(
    ("degrade", "fingerprint"),
    list(zip(OF_THE_DEMO, (-0.1817, -0.3596, -1.0617, -0.0635, 0.3908), strict=True)),
)
def test_the_pictures_that_the_laptop_demo_learns_from_stay_as_they_are(degrade: Degrade, fingerprint: float) -> None:
    rows, columns, channels = np.mgrid[:64, :64, :3]
    picture = ((rows * 5 + columns * 3 + channels * 80) ^ (rows * columns // 16)).astype(np.uint8)
    weights = np.sin(rows * 0.37 + columns * 0.61 + channels)
    assert float((degrade(picture, None, rng()) * weights).mean()) == pytest.approx(fingerprint, abs=1e-3)


def test_light_and_its_display_are_inverse() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_picture(to_light(levels)), levels)


def test_removing_colour_keeps_grey_as_it_is() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    np.testing.assert_array_equal(reduction.remove_colour(grey, None, rng()), grey)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_holes_cover_a_fifth_to_two_fifths_and_nothing_else_changes(size: int) -> None:
    picture = clean(size)
    for seed in range(30):
        is_hole = holes.draw_holes(size, size, rng(seed))
        assert 0.2 <= is_hole.mean() <= 0.4
        spoilt = holes.cut_holes(picture, None, rng(seed))
        np.testing.assert_array_equal(spoilt[~is_hole], picture[~is_hole])
        assert (spoilt[is_hole] == holes.HOLE_GREY).all()


def test_noise_has_no_bias_in_the_mid_tones_and_the_stated_strength() -> None:
    for seed in range(10):
        error = sensors.add_noise(flat(128), None, rng(seed)).astype(float) - 128
        assert abs(error.mean()) < 3
        assert 0.15 * 255 * 0.9 < error.std() < 0.35 * 255


def test_a_dark_exposure_keeps_the_stated_share_of_the_light() -> None:
    shares = [to_light(sensors.darken(flat(255), None, rng(seed))).mean() for seed in range(30)]
    low, high = sensors.EXPOSURE
    assert low * 0.9 < min(shares)
    assert max(shares) < high * 1.1
    assert max(shares) > 2 * min(shares)


def test_the_noise_of_a_dark_exposure_grows_with_the_light_as_photons_do() -> None:
    # The read-out alone in the black, a photon's variance for each photon above it.
    variances = [np.mean([to_light(sensors.darken(flat(level), None, rng(seed))).var() for seed in range(20)]) for level in (128, 255)]
    assert 2.5 < variances[1] / variances[0] < 4.5


def test_each_pixel_of_a_sensor_keeps_one_colour_in_cells_of_red_two_greens_and_blue() -> None:
    picture = clean()
    spoilt = sensors.keep_one_colour(picture, None, rng())
    kept = sensors.bayer_pattern(64, 64)
    np.testing.assert_array_equal(kept.sum(axis=-1), 1)
    np.testing.assert_array_equal(kept.mean(axis=(0, 1)), [0.25, 0.5, 0.25])
    np.testing.assert_array_equal(kept[:2, :2].argmax(axis=-1), [[0, 1], [1, 2]])
    np.testing.assert_array_equal(spoilt[kept], picture[kept])
    assert not spoilt[~kept].any()


def test_blur_keeps_plain_pictures_and_the_mean_of_all() -> None:
    np.testing.assert_array_equal(blurring.blur(flat(77), None, rng()), flat(77))
    inner = flat(0)
    inner[28:36, 28:36] = 255
    assert blurring.blur(inner, None, rng()).mean() == pytest.approx(inner.mean(), rel=0.1)


def test_blur_is_as_wide_at_every_resolution() -> None:
    def width(size: int) -> float:
        line = flat(0, size, size)
        line[:, size // 2 :] = 255
        profile = np.diff(blurring.blur(line, None, rng())[size // 2, :, 0].astype(float))
        centre = np.average(np.arange(size - 1), weights=profile)
        return float(np.sqrt(np.average((np.arange(size - 1) - centre) ** 2, weights=profile)) / size)

    assert width(128) == pytest.approx(width(64), rel=0.05)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_shaking_keeps_plain_pictures(level: int) -> None:
    np.testing.assert_array_equal(blurring.shake(flat(level), None, rng()), flat(level))


def test_a_shaken_point_is_spread_along_a_centred_path_of_the_stated_length_and_keeps_its_light() -> None:
    for seed in range(20):
        kernel = blurring.draw_path(100, rng(seed))
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        offsets = np.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum(axis=0) @ offsets == pytest.approx(0, abs=1e-4)
        assert kernel.sum(axis=1) @ offsets == pytest.approx(0, abs=1e-4)
        rows, columns = np.nonzero(kernel > 1e-4)
        assert math.hypot(np.ptp(rows), np.ptp(columns)) < 22 + 3
    point = flat(0)
    point[32, 32] = 255
    shaken = blurring.shake(point, None, rng())
    assert to_light(shaken).sum() == pytest.approx(to_light(point).sum(), rel=0.05)


def test_some_paths_are_straight_and_some_are_curved() -> None:
    def narrowness(seed: int) -> float:
        kernel = blurring.draw_path(128, rng(seed))
        places = np.argwhere(kernel > 0) - len(kernel) // 2
        return float(np.sqrt(np.linalg.eigvalsh(np.cov(places.T, aweights=kernel[kernel > 0]))[0]))

    widths = [narrowness(seed) for seed in range(30)]
    assert min(widths) < 0.5
    assert max(widths) > 1.5


def test_shrinking_keeps_block_means_and_twice_is_once() -> None:
    picture = clean()
    shrunk = reduction.shrink(picture, None, rng())
    blocks = picture.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrunk[::8, ::8], blocks, atol=1)
    np.testing.assert_array_equal(reduction.shrink(shrunk, None, rng()), shrunk)


def test_jpeg_keeps_mid_grey_and_loses_more_where_there_is_more_to_lose() -> None:
    np.testing.assert_array_equal(reduction.compress(flat(128), None, rng()), flat(128))
    noise = rng().integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert psnr(reduction.compress(noise, None, rng()), noise) < psnr(reduction.compress(clean(), None, rng()), clean())


def test_air_beyond_air_is_one_layer_of_both() -> None:
    light, air = to_light(clean(16)), np.array([0.7, 0.75, 0.8], np.float32)
    first, second = (rng(seed).uniform(0, 20, (16, 16)).astype(np.float32) for seed in (1, 2))
    twice = weather.scatter(weather.scatter(light, first, air, 0.1), second, air, 0.1)
    np.testing.assert_allclose(twice, weather.scatter(light, first + second, air, 0.1), atol=1e-5)


def test_haze_takes_as_much_contrast_a_metre_as_is_stated() -> None:
    depth = np.tile(np.linspace(1, 12, 64, dtype=np.float32), (2, 1))
    stripes = np.stack([flat(40, 1, 64)[0], flat(200, 1, 64)[0]])
    for seed in range(10):
        hazy = to_light(weather.add_haze(stripes, depth, rng(seed)))
        contrast = (hazy[1] - hazy[0]).mean(axis=-1) / (to_light(stripes)[1, 0, 0] - to_light(stripes)[0, 0, 0])
        per_m = -np.log(contrast[[0, 40]]) / depth[0, [0, 40]]
        assert per_m[1] == pytest.approx(per_m[0], abs=0.02)
        assert weather.HAZE_PER_M[0] - 0.01 < per_m[1] < weather.HAZE_PER_M[1] + 0.01


@pytest.mark.parametrize("degrade", WEATHER)
def test_no_weather_comes_before_what_touches_the_lens(degrade: Degrade) -> None:
    picture = clean()
    np.testing.assert_array_equal(degrade(picture, np.zeros((64, 64), np.float32), rng()), picture)


@pytest.mark.parametrize("degrade", WEATHER)
def test_weather_grows_with_depth(degrade: Degrade) -> None:
    changes = [np.abs(degrade(flat(60), np.full((64, 64), depth, np.float32), rng()).astype(int) - 60).mean() for depth in (1.1, 3, 9, 30)]
    assert np.all(np.diff(changes) > 2)


@pytest.mark.parametrize("degrade", [weather.add_rain, weather.add_snow])
def test_more_falls_before_a_far_wall_than_before_a_near_one_and_what_falls_near_is_before_both(degrade: Degrade) -> None:
    def falls(depth: float, contrast: int) -> np.ndarray:
        spoilt = degrade(flat(0, 128, 128), np.full((128, 128), depth, np.float32), rng()).astype(int).mean(axis=-1)
        return spoilt > spoilt.min() + contrast

    near, far = falls(1.5, 25), falls(9.0, 6)
    assert 0 < near.mean() < far.mean() < 0.5
    assert far[near].mean() > 0.9


def test_near_flakes_are_fewer_and_larger_than_far_ones() -> None:
    layers = dict(weather.draw_snow(256, 256, rng()))
    (_, near_count), (_, far_count) = (label(layers[distance] > 0.05) for distance in (1.2, 5.5))
    assert near_count < far_count / 4
    assert (layers[1.2] > 0.05).sum() / near_count > 4 * (layers[5.5] > 0.05).sum() / far_count


@pytest.mark.parametrize("degrade", WEATHER)
def test_a_picture_without_depth_is_given_a_plausible_one(degrade: Degrade) -> None:
    for seed in range(10):
        depth = weather.imagine_depth(flat(0, 48, 64), rng(seed))
        assert depth.shape == (48, 64)
        assert 0.5 < depth.min() < depth.max() < 40
        assert depth[:4].mean() > 1.5 * depth[-4:].mean()
    assert (degrade(clean(), None, rng(1)) != degrade(clean(), None, rng(2))).any()
