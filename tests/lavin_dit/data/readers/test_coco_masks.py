import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lavin_dit.data.readers.coco_masks import decode_runs, mask_in_square
from lavin_dit.data.readers.squares import Square


def runs_of(mask: NDArray[np.bool_]) -> list[int]:
    """The lengths of runs of 0 and 1 in turn, down the columns."""
    values = mask.T.ravel()
    ends = [*np.flatnonzero(values[1:] != values[:-1]) + 1, len(values)]
    return [*([0] if values[0] else []), *np.diff([0, *ends]).tolist()]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_runs_are_the_inverse_of_their_mask(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    assert np.array_equal(decode_runs({"size": [height, width], "counts": runs_of(mask)}, (width, height)), mask)


def test_compressed_runs_are_read_as_the_official_tools_write_them() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:4, 2:7] = True
    mask[5, 0] = True
    assert np.array_equal(decode_runs({"size": [6, 8], "counts": "5172L00000005"}, (8, 6)), mask)

    y, x = np.mgrid[:200, :300]
    disc = (y - 90) ** 2 + (x - 150) ** 2 < 16**2
    counts = "]^j0;k54L4M2N2N2N2O0O2O0O2O00000000000000000001N101N101N2N2N2N3L4LmRj0"
    assert np.array_equal(decode_runs({"size": [200, 300], "counts": counts}, (300, 200)), disc)


def test_a_polygon_holds_the_pixels_whose_middles_it_holds() -> None:
    square = Square.of((10, 10), 10)
    outline = [2, 3, 6.4, 3, 6.4, 7.6, 2, 7.6]
    expected = np.zeros((10, 10), np.bool_)
    expected[3:8, 2:6] = True
    assert np.array_equal(mask_in_square([outline], (10, 10), square), expected)


def test_polygons_and_runs_of_the_same_object_agree_in_a_square_of_any_size() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[12:44, 22:58] = True
    for resolution in (15, 30, 60, 120):
        square = Square.of((80, 60), resolution)
        polygon = mask_in_square([[22, 12, 58, 12, 58, 44, 22, 44]], (80, 60), square)
        runs = mask_in_square({"size": [60, 80], "counts": runs_of(mask)}, (80, 60), square)
        assert np.array_equal(polygon, runs)


def test_parts_of_one_object_are_joined() -> None:
    square = Square.of((10, 10), 10)
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 8, 5, 8, 8, 5, 8]]
    assert mask_in_square(parts, (10, 10), square).sum() == 4 + 9


def test_a_run_length_code_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="its picture 6 high and 8 wide"):
        decode_runs({"size": [8, 6], "counts": [48]}, (8, 6))
