import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lavin_dit.data.drawings.skeletons import HUES, disc_radius, draw_skeletons, find_joints, find_peaks
from lavin_dit.data.world.figures import BONES, JOINT_NAMES, NUM_JOINTS

SIZES = st.sampled_from([48, 64, 128])


def drawn(figures: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    return draw_skeletons(figures, size, size)


def standing_figure(size: int, *, x: float = 0.5) -> NDArray[np.float64]:
    """A figure that faces us with its arms and legs spread: no two discs touch. `x` is its middle, as a share of the width."""
    places = {
        "head": (0, 0.1),
        "neck": (0, 0.22),
        **{
            f"{side}_{joint}": (sign * across, down)
            for side, sign in (("right", -1), ("left", 1))
            for joint, (across, down) in LIMBS.items()
        },
    }
    return np.array([(size * (x + places[name][0]), size * places[name][1], 1.0) for name in JOINT_NAMES])


LIMBS = {
    "shoulder": (0.1, 0.25),
    "elbow": (0.17, 0.38),
    "wrist": (0.22, 0.5),
    "hip": (0.06, 0.52),
    "knee": (0.09, 0.7),
    "ankle": (0.12, 0.88),
}


@pytest.mark.parametrize("size", [64, 128, 256])
def test_every_joint_of_a_figure_comes_back_to_a_tenth_of_a_pixel(size: int) -> None:
    figure = standing_figure(size)
    np.testing.assert_allclose(find_joints(drawn(figure[None], size)), figure, atol=0.1)


@given(SIZES, st.integers(0, NUM_JOINTS - 1), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_a_joint_comes_back_from_wherever_it_is_and_no_other_appears(size: int, joint: int, x: float, y: float) -> None:
    figure = np.zeros((NUM_JOINTS, 3))
    figure[joint] = (x * size, y * size, 1)
    np.testing.assert_allclose(find_joints(drawn(figure[None], size)), figure, atol=0.1)


@given(SIZES, st.integers(0, NUM_JOINTS - 1), st.sampled_from([0.001, 0.5, 0.999]), st.sampled_from([0.001, 0.999]))
def test_a_joint_at_the_border_is_found_within_its_disc(size: int, joint: int, x: float, y: float) -> None:
    figure = np.zeros((NUM_JOINTS, 3))
    figure[joint] = (x * size, y * size, 1)
    found = find_joints(drawn(figure[None], size))
    np.testing.assert_array_equal(found[:, 2], figure[:, 2])
    assert np.hypot(*(found - figure)[joint, :2]) < disc_radius(size, size)


@given(SIZES, st.sampled_from(list(itertools.permutations(range(NUM_JOINTS), 2))), st.floats(0, 6.3), st.floats(0.5, 4))
def test_of_two_joints_side_by_side_neither_buries_the_other(size: int, pair: tuple[int, int], angle: float, apart: float) -> None:
    figure = np.zeros((NUM_JOINTS, 3))
    figure[list(pair), :2] = size / 2
    figure[pair[1], :2] += apart * np.array([np.cos(angle), np.sin(angle)])
    figure[list(pair), 2] = 1
    found = find_joints(drawn(figure[None], size))
    np.testing.assert_array_equal(found[:, 2], figure[:, 2])
    assert np.hypot(*(found - figure)[:, :2].T).max() < disc_radius(size, size)


def test_hidden_joints_and_their_bones_are_not_drawn() -> None:
    figure = standing_figure(64)
    figure[:, 2] = 0
    assert not drawn(figure[None], 64).any()
    wrist = JOINT_NAMES.index("left_wrist")
    figure[wrist, 2] = 1
    found = find_joints(drawn(figure[None], 64))
    assert np.flatnonzero(found[:, 2]).tolist() == [wrist]


def test_a_picture_without_figures_is_black_and_has_no_joint() -> None:
    picture = drawn(np.zeros((0, NUM_JOINTS, 3)), 32)
    assert not picture.any()
    assert not find_joints(picture).any()


def test_joints_outside_the_picture_leave_it_alone() -> None:
    figure = standing_figure(64)
    figure[:, :2] += 1000
    assert not drawn(figure[None], 64).any()


@pytest.mark.parametrize("size", [64, 256])
def test_the_joints_of_a_soft_and_noisy_picture_are_found(size: int) -> None:
    figure = standing_figure(size)
    soft = gaussian_filter(drawn(figure[None], size).astype(float), (0.9, 0.9, 0)) * 0.9
    noisy = np.clip(soft + np.random.default_rng(0).normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
    found = find_joints(noisy)
    np.testing.assert_array_equal(found[:, 2], 1)
    np.testing.assert_allclose(found, figure, atol=1.0)


def test_all_joints_of_two_figures_are_found_and_the_figures_told_apart() -> None:
    picture = draw_skeletons(np.stack([standing_figure(128, x=0.25), standing_figure(128, x=1.25)]), 128, 192)
    peaks = find_peaks(picture)
    assert np.bincount(peaks.joints).tolist() == [2] * NUM_JOINTS
    is_left = peaks.places[:, 0] < 96
    assert len(set(peaks.pieces[is_left])) == len(set(peaks.pieces[~is_left])) == 1
    assert len(set(peaks.pieces)) == 2


def test_joints_that_touch_on_a_body_have_hues_far_apart() -> None:
    sides = [(JOINT_NAMES.index(f"right_{joint}"), JOINT_NAMES.index(f"left_{joint}")) for joint in LIMBS]
    for one, other in (*BONES, *sides):
        steps = abs(HUES[JOINT_NAMES[one]] - HUES[JOINT_NAMES[other]])
        assert min(steps, NUM_JOINTS - steps) >= 3
    assert sorted(HUES.values()) == list(range(NUM_JOINTS))
