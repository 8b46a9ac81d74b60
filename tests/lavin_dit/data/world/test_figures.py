import math
from dataclasses import replace

import numpy as np
import pytest

from lavin_dit.data.world.crowd import is_whole
from lavin_dit.data.world.figures import BONES, JOINT_NAMES, NUM_JOINTS, Figure, Gait
from lavin_dit.data.world.furnishing import draw_layout
from lavin_dit.data.world.layout import CLASSES, Layout, World, stand_apart
from lavin_dit.data.world.limbs import CLOTHS, LIMBS, rods_of
from lavin_dit.data.world.scenes import FIRST_SOLID, render

SIZE = 96
FIGURE = CLASSES.index("figure")
EASY_WITH_FIGURES, HARD = World(figures=True), World(difficulty=1.0, figures=True)


def figure_of(index: int = 0) -> Figure:
    return draw_layout(0, index, EASY_WITH_FIGURES).figures[0]


def alone(layout: Layout) -> Layout:
    return replace(layout, solids=(), materials=(), figures=layout.figures[:1])


@pytest.mark.parametrize("world", [EASY_WITH_FIGURES, HARD])
def test_every_scene_has_a_whole_figure_with_room_around_it(world: World) -> None:
    for index in range(60):
        layout = draw_layout(1, index, world)
        assert 1 <= len(layout.figures) <= 2
        for number, figure in enumerate(layout.figures):
            assert is_whole(figure, layout.camera)
            assert all(stand_apart(figure, other) for other in (*layout.solids, *layout.figures[:number]))


def test_most_solids_stay_when_a_figure_comes() -> None:
    counts = [(len(draw_layout(1, index).solids), len(draw_layout(1, index, EASY_WITH_FIGURES).solids)) for index in range(60)]
    assert all(after <= before for before, after in counts)
    assert np.mean([after == before for before, after in counts]) > 0.5


def test_the_easy_world_with_figures_is_the_easy_world_where_no_figure_is() -> None:
    for index in range(10):
        bare, peopled = draw_layout(1, index), draw_layout(1, index, EASY_WITH_FIGURES)
        assert set(peopled.solids) <= set(bare.solids)
        assert (bare.camera, bare.light, bare.ground) == (peopled.camera, peopled.light, peopled.ground)


def test_bones_keep_their_length_through_every_phase_of_a_step() -> None:
    figure = figure_of()
    lengths = []
    for phase in np.linspace(0, 2 * math.pi, 9):
        joints = replace(figure, phase=float(phase)).joints
        lengths.append([np.linalg.norm(joints[a] - joints[b]) for a, b in BONES])
    np.testing.assert_allclose(np.array(lengths), np.array(lengths)[:1].repeat(9, axis=0), rtol=1e-6)
    assert sum(lengths[0][:1]) > 0.05 * figure.height


def test_a_figure_is_as_high_as_it_says_and_stands_on_its_lower_foot() -> None:
    straight = Gait(stride=0.0, wave=0.0, arm_spread=(0.1, 0.1), elbow_bend=(0.0, 0.0), lean=0.0)
    figure = replace(figure_of(), gait=straight, base=0.3)
    rods = rods_of(figure)
    rises = rods.sizes[0] * (1 + np.abs(rods.turns[1, 1]) * rods.proportions)
    assert (rods.centres[1] + rises).max() - 0.3 == pytest.approx(figure.height, rel=0.03)
    assert (rods.centres[1] - rises).min() == pytest.approx(0.3, abs=1e-6)


def test_right_is_right_of_where_a_figure_faces() -> None:
    for index in range(8):
        figure = figure_of(index)
        joints = figure.joints - np.array([figure.x, figure.base, figure.z])
        right = np.array([math.cos(figure.yaw), 0.0, -math.sin(figure.yaw)])
        for name in ("shoulder", "hip"):
            assert joints[JOINT_NAMES.index(f"right_{name}")] @ right > 0.03
            assert joints[JOINT_NAMES.index(f"left_{name}")] @ right < -0.03


def test_every_joint_lies_within_the_flesh_that_is_drawn_around_it() -> None:
    for index in range(8):
        figure = figure_of(index)
        rods = rods_of(figure)
        for joint in figure.joints:
            x, y, z = np.einsum("ijn,jn->in", rods.turns, joint[:, None] - rods.centres) / rods.sizes
            beyond = y - np.clip(y, -rods.proportions, rods.proportions)
            assert np.sqrt(x**2 + beyond**2 + z**2).min() < 0.5


def test_limbs_are_turned_by_true_rotations() -> None:
    turns = rods_of(figure_of()).turns.transpose(2, 0, 1)
    assert len(turns) == len(LIMBS) == len(CLOTHS)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-6)


def test_limbs_are_painted_with_the_clothes_that_they_name() -> None:
    outfit = figure_of().outfit
    assert [outfit.materials[number] for number in CLOTHS] == [getattr(outfit, limb.cloth) for limb in LIMBS]


@pytest.mark.parametrize("index", range(6))
def test_joints_that_are_seen_lie_on_their_figure(index: int) -> None:
    layout = draw_layout(2, index, HARD)
    scene = render(layout, SIZE)
    assert scene.joints.shape == (len(layout.figures), NUM_JOINTS, 3)
    first = FIRST_SOLID + len(layout.solids)
    hits = []
    for number, joints in enumerate(scene.joints):
        columns, rows = (joints[joints[:, 2] == 1, :2]).astype(int).T
        hits += (scene.instances[rows, columns] == first + number).tolist()
    assert len(hits) >= 6
    assert np.mean(hits) > 0.9


def test_what_stands_before_a_joint_hides_it() -> None:
    layout = alone(draw_layout(2, 0, EASY_WITH_FIGURES))
    figure = layout.figures[0]
    before = render(layout, SIZE).joints[0]
    covered = draw_layout(2, 0).solids[0]
    nearer = 0.6
    wall = replace(covered, shape="box", x=figure.x * nearer, z=figure.z * nearer, half=(1.5, 3.0, 0.1), yaw=0.0)
    after = render(replace(layout, solids=(wall,), materials=draw_layout(2, 0).materials[:1]), SIZE).joints[0]
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert before[:, 2].sum() >= 7
    assert after[:, 2].sum() == 0


def test_joints_outside_the_picture_are_not_seen() -> None:
    layout = alone(draw_layout(2, 0, EASY_WITH_FIGURES))
    aside = replace(layout.figures[0], x=layout.figures[0].z * layout.camera.reach * 1.05)
    joints = render(replace(layout, figures=(aside,)), SIZE).joints[0]
    outside = (joints[:, :2] < 0).any(axis=1) | (joints[:, :2] >= SIZE).any(axis=1)
    assert outside.any()
    assert (joints[outside, 2] == 0).all()


def test_all_parts_of_a_figure_are_one_instance_with_the_faces_of_head_trunk_and_limbs() -> None:
    layout = alone(draw_layout(2, 1, EASY_WITH_FIGURES))
    scene = render(layout, SIZE)
    own = scene.instances == FIRST_SOLID
    assert (scene.classes[own] == FIGURE).all()
    assert own.mean() > 0.01
    assert len(np.unique(scene.faces[own])) >= 4
