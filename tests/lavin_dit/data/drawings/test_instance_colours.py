import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lavin_dit.data.drawings.instance_colours import (
    COLOURS,
    MAX_INSTANCES,
    decode_instances,
    encode_instance_clip,
    encode_instances,
    number_objects,
)
from lavin_dit.data.drawings.palette import nearest_colour

block_maps = arrays(np.int64, (2, 5, 6), elements=st.integers(0, 9)).map(lambda ids: ids.repeat(3, axis=1).repeat(3, axis=2))


def squares(*places: tuple[int, int, int], size: int = 32) -> NDArray[np.int64]:
    """Squares of 6 pixels: the id, and the row and column of a corner."""
    ids = np.zeros((size, size), np.int64)
    for name, row, column in places:
        ids[row : row + 6, column : column + 6] = name
    return ids


def test_objects_are_numbered_from_left_to_right_whatever_their_ids() -> None:
    decoded = decode_instances(encode_instances(squares((9_000_000, 2, 20), (4, 9, 1), (70, 20, 10))))
    assert [decoded[11, 3], decoded[22, 12], decoded[4, 22]] == [1, 2, 3]
    assert decoded[0, 0] == 0


@given(block_maps, st.permutations(range(1, 10)))
def test_other_ids_of_the_same_objects_give_the_same_picture(ids: NDArray[np.int64], others: list[int]) -> None:
    renamed = np.array([0, *others])[ids]
    np.testing.assert_array_equal(encode_instance_clip(renamed), encode_instance_clip(ids))


@given(block_maps)
def test_the_pixels_of_every_object_and_of_the_background_come_back(ids: NDArray[np.int64]) -> None:
    decoded = decode_instances(encode_instance_clip(ids))
    pairs = set(zip(ids.ravel().tolist(), decoded.ravel().tolist(), strict=True))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert all((a == 0) == (b == 0) for a, b in pairs)


@given(arrays(np.int64, (1, 8, 8), elements=st.integers(0, 3)))
def test_reading_a_picture_and_drawing_it_again_changes_nothing(ids: NDArray[np.int64]) -> None:
    picture = encode_instances(ids[0])
    np.testing.assert_array_equal(encode_instances(decode_instances(picture)), picture)


def test_what_fills_no_square_is_background_when_drawn() -> None:
    ids = squares((1, 4, 4))
    ids[20:22, :], ids[:, 25] = 2, 3
    np.testing.assert_array_equal(encode_instances(ids), encode_instances(np.where(ids == 1, 1, 0)))


def test_the_seams_of_a_soft_picture_are_no_objects() -> None:
    ids = squares((1, 4, 2), (2, 4, 8), (3, 10, 5), (4, 20, 20))
    picture = encode_instances(ids)
    soft = gaussian_filter(picture.astype(float), (0.9, 0.9, 0)).round().astype(np.uint8)
    assert len(np.unique(nearest_colour(soft, COLOURS))) > 5
    decoded = decode_instances(soft)
    assert np.unique(decoded).tolist() == [0, 1, 2, 3, 4]
    assert (decoded == decode_instances(picture)).mean() > 0.97


def test_of_too_many_objects_the_largest_stay() -> None:
    ids = np.arange(64).reshape(8, 8).repeat(4, axis=0).repeat(4, axis=1) + 1
    ids[:4, :8] = 999
    numbers = number_objects(ids[None])[0]
    assert set(np.unique(numbers)) == set(range(MAX_INSTANCES + 1))
    assert (numbers[:4, :8] > 0).all()


def test_an_object_keeps_its_colour_through_a_clip_and_a_newcomer_takes_the_next() -> None:
    clip = np.stack([squares((5, 2, 20), (8, 2, 2)), squares((5, 2, 12), (8, 2, 22)), squares((5, 2, 4), (8, 2, 24), (1, 20, 1))])
    decoded = decode_instances(encode_instance_clip(clip))
    for name, number in ((8, 1), (5, 2), (1, 3), (0, 0)):
        assert set(decoded[clip == name]) == {number}


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16)])
def test_a_picture_without_objects_is_black(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape, np.uint8)
    picture = encode_instances(empty) if len(shape) == 2 else encode_instance_clip(empty)
    assert picture.shape == (*shape, 3)
    assert not picture.any()
    assert not decode_instances(picture).any()
