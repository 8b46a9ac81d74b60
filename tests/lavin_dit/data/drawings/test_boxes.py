import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lavin_dit.data.drawings.boxes import Box, box_iou, draw_box, find_box

HEIGHT, WIDTH = 24, 32
starts, lengths = st.floats(-8, 20), st.floats(3, 40)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), starts, starts, lengths, lengths)


def clipped(box: Box) -> Box:
    x0, y0, x1, y1 = np.clip(box, 0, (WIDTH, HEIGHT, WIDTH, HEIGHT)).tolist()
    return x0, y0, x1, y1


@given(boxes.map(clipped).filter(lambda box: box[2] - box[0] >= 3 and box[3] - box[1] >= 3))
@example((1.5, 1.5, 4.5, 4.5))
def test_a_box_comes_back_to_a_hundredth_of_a_pixel(box: Box) -> None:
    np.testing.assert_allclose(find_box(draw_box(box, HEIGHT, WIDTH)), box, atol=0.01)


def test_a_box_that_reaches_outside_is_drawn_as_far_as_it_is_seen() -> None:
    box = (-5.0, 3.0, 100.0, 9.0)
    np.testing.assert_array_equal(draw_box(box, HEIGHT, WIDTH), draw_box(clipped(box), HEIGHT, WIDTH))


@given(boxes.map(clipped).filter(lambda box: box[2] - box[0] >= 6 and box[3] - box[1] >= 6), st.integers(0, 2**32 - 1))
def test_ragged_edges_holes_and_specks_hardly_move_it(box: Box, seed: int) -> None:
    generator = np.random.default_rng(seed)
    picture = draw_box(box, HEIGHT, WIDTH)
    is_wrong = generator.uniform(size=(HEIGHT, WIDTH)) < 0.1
    picture[is_wrong] = 255 - picture[is_wrong]
    found = find_box(picture)
    assert found is not None
    assert box_iou(found, box) > 0.5


@given(st.integers(0, 2**32 - 1))
def test_the_box_of_any_picture_has_an_area(seed: int) -> None:
    generator = np.random.default_rng(seed)
    found = find_box(generator.integers(0, 256, (9, 11, 3)).astype(np.uint8))
    if found is not None:
        assert found[0] < found[2]
        assert found[1] < found[3]


def test_black_and_a_speck_are_no_box() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert find_box(picture) is None
    picture[4, 4:7] = 255
    assert find_box(picture) is None


def test_white_all_over_is_a_box_as_large_as_the_picture() -> None:
    assert find_box(np.full((HEIGHT, WIDTH, 3), 255, np.uint8)) == (0, 0, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("other", "iou"), [((0, 0, 4, 4), 1.0), ((2, 0, 6, 4), 8 / 24), ((4, 4, 8, 8), 0.0), ((9, 9, 10, 10), 0.0), ((1, 1, 3, 3), 4 / 16)]
)
def test_the_overlap_of_boxes_is_the_one_worked_out_by_hand(other: Box, iou: float) -> None:
    assert box_iou((0, 0, 4, 4), other) == box_iou(other, (0, 0, 4, 4)) == pytest.approx(iou)
