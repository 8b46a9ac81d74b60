from collections.abc import Callable

import numpy as np
import pytest

from lavin_dit.data import degradations
from lavin_dit.data.scenes import render_scene

ALL = (degradations.remove_colour, degradations.cut_holes, degradations.add_noise, degradations.blur, degradations.shrink)
Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clean(size: int = 64) -> np.ndarray:
    return render_scene(0, 0, size).rgb


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a.astype(float) - b) / 255).mean()))


@pytest.mark.parametrize("degrade", ALL)
def test_equal_generators_spoil_equally_and_leave_the_clean_picture_alone(degrade: Degrade) -> None:
    picture, before = clean(), clean()
    spoilt = degrade(picture, rng())
    np.testing.assert_array_equal(spoilt, degrade(picture, rng()))
    np.testing.assert_array_equal(picture, before)
    assert spoilt.dtype == np.uint8
    assert spoilt.shape == picture.shape


@pytest.mark.parametrize("degrade", ALL)
def test_the_problem_is_real_a_spoilt_picture_is_far_from_the_clean_one(degrade: Degrade) -> None:
    spoilt = [psnr(degrade(render_scene(0, index, 64).rgb, rng(index)), render_scene(0, index, 64).rgb) for index in range(10)]
    assert 10 < np.mean(spoilt) < 25.5


def test_removing_colour_keeps_grey_as_it_is() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    np.testing.assert_array_equal(degradations.remove_colour(grey, rng()), grey)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_holes_cover_a_fifth_to_two_fifths_and_nothing_else_changes(size: int) -> None:
    for seed in range(30):
        holes = degradations.draw_holes(size, size, rng(seed))
        assert 0.2 <= holes.mean() <= 0.4
        picture = clean(size)
        spoilt = degradations.cut_holes(picture, rng(seed))
        np.testing.assert_array_equal(spoilt[~holes], picture[~holes])
        assert (spoilt[holes] == degradations.HOLE_GREY).all()


def test_noise_has_no_bias_in_the_mid_tones_and_the_stated_strength() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    for seed in range(10):
        error = degradations.add_noise(grey, rng(seed)).astype(float) - grey
        assert abs(error.mean()) < 3
        assert 0.15 * 255 * 0.9 < error.std() < 0.35 * 255


def test_blur_keeps_plain_pictures_and_the_mean_of_all() -> None:
    plain = np.full((64, 64, 3), 77, np.uint8)
    np.testing.assert_array_equal(degradations.blur(plain, rng()), plain)
    inner = np.zeros((64, 64, 3), np.uint8)
    inner[28:36, 28:36] = 255
    assert degradations.blur(inner, rng()).mean() == pytest.approx(inner.mean(), rel=0.1)


def test_blur_is_as_wide_at_every_resolution() -> None:
    def width(size: int) -> float:
        line = np.zeros((size, size, 3), np.uint8)
        line[:, size // 2 :] = 255
        profile = np.diff(degradations.blur(line, rng())[size // 2, :, 0].astype(float))
        centre = np.average(np.arange(size - 1), weights=profile)
        return float(np.sqrt(np.average((np.arange(size - 1) - centre) ** 2, weights=profile)) / size)

    assert width(128) == pytest.approx(width(64), rel=0.05)


def test_shrinking_keeps_block_means_and_twice_is_once() -> None:
    picture = clean()
    shrunk = degradations.shrink(picture, rng())
    blocks = picture.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(shrunk[::8, ::8], blocks, atol=1)
    np.testing.assert_array_equal(degradations.shrink(shrunk, rng()), shrunk)
