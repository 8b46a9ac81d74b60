import math

import numpy as np
import pytest

from lavin_dit.data.drawings import encodings
from lavin_dit.evaluation.map_metrics import (
    PSNR_CAP_DB,
    angle_errors,
    depth_errors,
    flow_errors,
    measure_depth,
    measure_flow,
    measure_image,
    psnr_of,
)

SIZE = 32


def test_depth_that_is_ten_percent_too_far_has_an_absolute_relative_error_of_a_tenth() -> None:
    true = np.geomspace(1.0, 20.0, SIZE * SIZE).reshape(SIZE, SIZE)
    errors = depth_errors(true * 1.1, true)
    assert errors["abs_rel"] == pytest.approx(0.1)
    assert errors["delta1"] == 1.0
    assert errors["rmse"] == pytest.approx(0.1 * math.sqrt(np.square(true).mean()))


def test_depth_pictures_are_measured_in_metres() -> None:
    true = np.geomspace(1.5, 20.0, SIZE * SIZE).reshape(SIZE, SIZE)
    values = measure_depth(encodings.encode_depth(true * 1.1), encodings.encode_depth(true)).values
    assert values["abs_rel"] == pytest.approx(0.1, abs=0.005)


def test_depth_within_a_factor_counts_the_pixels_that_are() -> None:
    true = np.full((2, 2), 4.0)
    assert depth_errors(np.array([[4.0, 4.9], [5.1, 3.1]]), true)["delta1"] == 0.5


def test_a_sky_that_is_answered_too_near_is_an_error_of_depth() -> None:
    sky, near = (encodings.encode_depth(np.full((SIZE, SIZE), metres)) for metres in (encodings.DEPTH_FAR_M, 16.0))
    assert measure_depth(near, sky).values["abs_rel"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("degrees", [0.01, 10.0, 45.0, 170.0])
def test_normals_turned_by_an_angle_are_off_by_that_angle(degrees: float) -> None:
    generator = np.random.default_rng(0)
    true = generator.standard_normal((8, 8, 3))
    true /= np.linalg.norm(true, axis=-1, keepdims=True)
    axis = np.cross(true, generator.standard_normal((8, 8, 3)))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = math.radians(degrees)
    turned = math.cos(angle) * true + math.sin(angle) * np.cross(axis, true)
    errors = angle_errors(turned, true)
    assert errors["mean_angle"] == pytest.approx(degrees, rel=1e-6)
    assert errors["within_11_25"] == float(degrees < 11.25)
    assert errors["within_30"] == float(degrees < 30)


def test_normals_count_surfaces_only_and_no_normal_at_all_is_ninety_degrees_off() -> None:
    true = np.zeros((1, 4, 3))
    true[0, :2] = (0.0, 0.0, 1.0)
    predicted = np.zeros((1, 4, 3))
    predicted[0, 0] = (0.0, 0.0, 1.0)
    predicted[0, 2:] = (1.0, 0.0, 0.0)
    assert angle_errors(predicted, true)["mean_angle"] == pytest.approx(45.0)


def test_motion_that_is_off_by_a_vector_has_its_length_as_end_point_error() -> None:
    true = np.random.default_rng(0).normal(0, 5, (8, 8, 2))
    assert flow_errors(true + np.array([3.0, -4.0]), true)["epe"] == pytest.approx(5.0)


def test_an_outlier_is_off_by_more_than_three_pixels_and_by_more_than_five_percent() -> None:
    true = np.array([[[10.0, 0.0], [10.0, 0.0], [100.0, 0.0], [0.0, 0.0]]])
    off_by = np.array([[[2.9, 0.0], [0.0, 3.1], [4.9, 0.0], [0.0, -3.1]]])
    assert flow_errors(true + off_by, true)["outliers"] == pytest.approx(2 / 4)


@pytest.mark.parametrize("width", [64, 128])
def test_motion_pictures_are_measured_in_pixels_of_the_picture(width: int) -> None:
    still, moving = (encodings.encode_flow(np.full((8, width, 2), (right, 0.0))) for right in (0.0, 4.0))
    assert measure_flow(still, moving).values["epe"] == pytest.approx(4.0, rel=0.01)


def test_frames_that_are_right_already_do_not_drown_those_that_are_wrong() -> None:
    truth = np.full((5, 16, 16, 3), 100, np.uint8)
    answer = truth.copy()
    answer[4] += 51
    values = measure_image(answer, truth).values
    assert values["psnr"] == pytest.approx(-10 * math.log10(0.04 / 5))
    assert values["ssim"] == pytest.approx((4 + measure_image(answer[4], truth[4]).values["ssim"]) / 5)


def test_psnr_of_a_known_error_is_the_formula_and_that_of_equal_pictures_is_the_cap() -> None:
    truth = np.full((16, 16, 3), 100, np.uint8)
    values = measure_image(truth + np.uint8(51), truth).values
    assert values["mse"] == pytest.approx(0.04)
    assert values["psnr"] == pytest.approx(-10 * math.log10(0.04))
    assert psnr_of(0.0) == psnr_of(1e-12) == PSNR_CAP_DB
