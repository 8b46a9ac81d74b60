import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.data.drawings.flow_colours import decode_flow, encode_flow, max_flow

TOLERANCE = 0.01


def still(width: int = 16) -> np.ndarray:
    return np.zeros((4, width, 2))


@given(st.sampled_from([16, 64, 256, 1000]), st.floats(0, 1), st.floats(-math.pi, math.pi))
def test_motion_survives_the_picture_to_within_one_percent_of_the_longest(width: int, share: float, angle: float) -> None:
    flow = still(width) + share * max_flow(width) * np.array([math.cos(angle), math.sin(angle)])
    error = np.linalg.norm(decode_flow(encode_flow(flow)) - flow, axis=-1)
    assert error.max() <= TOLERANCE * max_flow(width)


@given(st.floats(1, 1000), st.floats(-math.pi, math.pi))
def test_a_longer_motion_keeps_its_direction_and_is_shown_at_the_longest(factor: float, angle: float) -> None:
    longest = still() + max_flow(16) * np.array([math.cos(angle), math.sin(angle)])
    np.testing.assert_allclose(encode_flow(longest * factor), encode_flow(longest), atol=1)


@pytest.mark.parametrize(
    ("direction", "colour"),
    [((1, 0), (255, 0, 0)), ((0, 1), (255, 230, 0)), ((-1, 0), (0, 209, 255)), ((0, -1), (88, 0, 255))],
)
def test_directions_have_the_colours_of_middleburys_wheel(direction: tuple[int, int], colour: tuple[int, int, int]) -> None:
    # Worked out from the published construction of the wheel: steps 0, 13.5, 27 and 40.5 of 55.
    assert encode_flow(still() + max_flow(16) * np.array(direction))[0, 0].tolist() == list(colour)


def test_what_stands_still_is_white_and_grey_of_any_brightness_stands_still() -> None:
    assert (encode_flow(still()) == 255).all()
    greys = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    assert not decode_flow(greys).any()


def test_the_same_motion_in_a_picture_of_twice_the_width_is_half_as_saturated() -> None:
    flow = still(32) + np.array([0.5, 0.0])
    near, far = (255 - int(encode_flow(flow[:, :width])[0, 0].min()) for width in (16, 32))
    assert near == pytest.approx(2 * far, abs=1)


def test_a_clip_is_drawn_frame_by_frame() -> None:
    flow = np.random.default_rng(0).normal(0, 1, (3, 8, 16, 2))
    np.testing.assert_array_equal(encode_flow(flow), [encode_flow(frame) for frame in flow])
    np.testing.assert_array_equal(decode_flow(encode_flow(flow)), [decode_flow(encode_flow(frame)) for frame in flow])
