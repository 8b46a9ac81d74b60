import numpy as np
import pytest

from lavin_dit.data.drawings.encodings import draw_box, draw_skeletons
from lavin_dit.data.drawings.skeletons import Peaks, find_peaks
from lavin_dit.data.world.figures import NUM_JOINTS
from lavin_dit.evaluation.place_metrics import figures_of, joint_distances, measure_boxes, measure_keypoints

SIZE = 96


def spread_joints(*, x: float = 0.0) -> np.ndarray:
    """A figure 60 pixels wide and high whose joints are far from each other."""
    places = np.array([(column, row) for row in (10, 30, 50, 70) for column in (10, 30, 50, 70)][:NUM_JOINTS], float)
    return np.column_stack([places + np.array([x, 0.0]), np.ones(NUM_JOINTS)])[None]


def values_of(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    return measure_keypoints(*(draw_skeletons(joints, SIZE, 2 * SIZE) for joints in (predicted, true))).values


def test_a_figure_moved_by_less_than_a_tenth_of_its_size_has_all_joints_right_and_one_moved_farther_none() -> None:
    # The longer side of what is drawn of it: 60 pixels from joint to joint, and a disc of 3 at both ends.
    near, far = (values_of(spread_joints(x=by), spread_joints()) for by in (6.0, 7.5))
    assert (near["pck"], far["pck"]) == (1.0, 0.0)
    assert near["joint_distance"] == pytest.approx(6.0 / 66, abs=0.002)


def test_joints_that_are_not_found_are_wrong_and_as_far_as_a_figure() -> None:
    predicted = spread_joints()
    predicted[0, :7, 2] = 0
    assert values_of(predicted, spread_joints()) == pytest.approx({"pck": 0.5, "joint_distance": 0.5}, abs=0.001)


def test_joints_that_the_truth_does_not_show_are_not_asked_for() -> None:
    true = spread_joints()
    true[0, :7, 2] = 0
    assert values_of(spread_joints(), true)["pck"] == 1.0


def test_a_joint_in_the_place_of_another_is_wrong() -> None:
    assert values_of(spread_joints()[:, ::-1], spread_joints())["pck"] == 0.0


def test_all_figures_of_a_picture_are_looked_for() -> None:
    both = np.concatenate([spread_joints(), spread_joints(x=100.0)])
    assert values_of(both, both)["pck"] == 1.0
    assert values_of(spread_joints(x=100.0), both)["pck"] == 0.5


def test_pieces_of_a_figure_that_a_hidden_joint_parts_are_measured_by_the_whole_figure() -> None:
    both = np.concatenate([spread_joints(), spread_joints(x=100.0)])
    both[:, [9, 12], 2] = 0
    peaks = find_peaks(draw_skeletons(both, SIZE, 2 * SIZE))
    figures = figures_of(peaks)
    is_left = peaks.places[:, 0] < SIZE
    assert len(np.unique(peaks.pieces)) > len(np.unique(figures)) == 2
    assert len(np.unique(figures[is_left])) == len(np.unique(figures[~is_left])) == 1


def test_one_joint_answers_for_one_and_no_more_are_looked_at_than_are_true() -> None:
    true = Peaks(np.array([3, 3]), np.array([[10.0, 10.0], [12.0, 10.0]]), np.array([1, 1]))
    one = Peaks(np.array([3]), np.array([[10.0, 10.0]]), np.array([1]))
    many = Peaks(np.array([3, 3, 3]), np.array([[90.0, 90.0], [80.0, 80.0], [10.0, 10.0]]), np.array([1, 1, 1]))
    sizes = np.array([20.0, 20.0])
    assert joint_distances(one, true, sizes).tolist() == [0.0, 1.0]
    assert joint_distances(many, true, sizes).tolist() == [1.0, 1.0]


def test_boxes_overlap_as_worked_out_by_hand() -> None:
    true, predicted = draw_box((10, 10, 30, 30), SIZE, SIZE), draw_box((10, 10, 30, 20), SIZE, SIZE)
    assert measure_boxes(predicted, true).values == pytest.approx({"iou": 0.5, "iou_50": 0.0})
    assert measure_boxes(draw_box((10, 10, 30, 21), SIZE, SIZE), true).values["iou_50"] == 1.0


def test_no_box_where_there_is_one_scores_zero() -> None:
    true = draw_box((10, 10, 30, 30), SIZE, SIZE)
    assert measure_boxes(np.zeros_like(true), true).values == {"iou": 0.0, "iou_50": 0.0}
