import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavin_dit.data.drawings.palette import FIRST_COLOURS, NUM_COLOURS, PALETTE, nearest_colour, spread_colours
from lavin_dit.data.world.layout import CLASSES

colours = st.tuples(*[st.integers(0, 255)] * 3)


def least_distance(palette: np.ndarray) -> float:
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(palette.astype(float), 2))


def test_the_palette_is_black_first_and_keeps_its_first_colours() -> None:
    assert PALETTE.shape == (NUM_COLOURS, 3)
    assert tuple(map(tuple, PALETTE[: len(FIRST_COLOURS)].tolist())) == FIRST_COLOURS
    assert FIRST_COLOURS[0] == (0, 0, 0)


@pytest.mark.parametrize(("count", "apart"), [(len(CLASSES), 130), (16, 90), (32, 85), (NUM_COLOURS, 44)])
def test_the_colours_are_far_apart_and_the_first_ones_farther(count: int, apart: float) -> None:
    assert least_distance(PALETTE[:count]) > apart


def test_more_colours_change_none_of_those_before() -> None:
    np.testing.assert_array_equal(spread_colours(FIRST_COLOURS, 20), PALETTE[:20])
    assert PALETTE[-1].tolist() == spread_colours(FIRST_COLOURS, NUM_COLOURS)[-1].tolist()


@given(st.lists(colours, min_size=1, max_size=40))
def test_no_colour_is_nearer_than_the_nearest(pixels: list[tuple[int, int, int]]) -> None:
    picture = np.array(pixels, np.uint8)[None]
    distances = np.square(picture[..., None, :].astype(int) - PALETTE.astype(int)).sum(axis=-1)
    np.testing.assert_array_equal(nearest_colour(picture, PALETTE), distances.argmin(axis=-1))


def test_pictures_of_any_size_are_read_whole() -> None:
    numbers = np.random.default_rng(0).integers(0, NUM_COLOURS, (3, 37, 41))
    np.testing.assert_array_equal(nearest_colour(PALETTE[numbers], PALETTE), numbers)
