import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.readers.squares import Square, fill_nearest

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(SIZES, st.integers(1, 50))
def test_a_map_is_picked_where_a_picture_is_cut(size: tuple[int, int], resolution: int) -> None:
    width, height = size
    assume(all((2 * place + 1) * min(size) % (2 * resolution) for place in range(resolution)))  # no middle lies between two pixels
    values = np.arange(width * height, dtype=np.int64).reshape(height, width)
    channels = np.stack([values % 256, values // 256, values * 0], axis=-1).astype(np.uint8)
    picture = square_picture(Image.fromarray(channels), resolution, is_nearest=True)
    assert np.array_equal(Square.of(size, resolution).pick(channels), picture)


@given(SIZES, st.integers(1, 50))
def test_a_point_lies_in_the_pixel_that_is_picked_for_it(size: tuple[int, int], resolution: int) -> None:
    square = Square.of(size, resolution)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    picked = np.stack([square.pick(x), square.pick(y)], axis=-1)
    centres = np.stack(np.meshgrid(np.arange(resolution), np.arange(resolution)), axis=-1) + 0.5
    away = np.abs(square.points(picked + 0.5) - centres).max()
    assert away <= 0.5 * resolution / square.side + 1e-9


def test_a_box_is_cut_to_the_square() -> None:
    square = Square.of((80, 60), 30)
    assert square.box((0, 0, 80, 60)) == (0, 0, 30, 30)
    assert square.box((20, 10, 30, 20)) == (5, 5, 10, 10)
    assert square.box((0, 0, 10, 60)) is None
    assert square.box((30, 20, 20, 10)) is None
    assert square.box((float("nan"), 0, 80, 60)) is None


def test_unknown_pixels_take_the_nearest_value_and_known_ones_keep_theirs() -> None:
    values = np.array([[1, 0, 0, 0, 5]])
    filled, gaps = fill_nearest(values, values > 0)
    assert filled.tolist() == [[1, 1, filled[0, 2], 5, 5]]
    assert gaps.tolist() == [[0, 1, 2, 1, 0]]
