import colorsys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.data.drawings.hues import colour_of, hue_and_chroma


@given(st.floats(0, 5.99))
def test_a_hue_is_that_of_its_colour(hue: float) -> None:
    red, green, blue = colour_of(np.array(hue))
    assert abs(colorsys.rgb_to_hsv(red, green, blue)[0] * 6 - hue) < 1e-9


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_the_hue_and_chroma_of_a_pixel_are_those_of_the_standard_library(pixel: tuple[int, int, int]) -> None:
    hue, chroma = hue_and_chroma(np.array(pixel, np.uint8))
    expected, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
    np.testing.assert_allclose([hue, chroma], [expected * 6, saturation * value], atol=1e-5)
