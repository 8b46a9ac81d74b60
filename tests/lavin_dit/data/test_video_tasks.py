import numpy as np
import pytest

from lavin_dit.data.drawings import encodings
from lavin_dit.data.tasks import TASKS, generator_of, pair_of_clip, pair_of_scene
from lavin_dit.data.views import UNKNOWN_GREY, later_frames, objects_of
from lavin_dit.data.world.clips import MovingScene, render_moving_scene
from lavin_dit.data.world.layout import World

SIZE, NUM_FRAMES = 64, 9


@pytest.fixture(scope="module")
def moving_scene() -> MovingScene:
    return render_moving_scene(0, 1, SIZE, num_frames=NUM_FRAMES, world=World(difficulty=0.5, figures=True))


def clips_of(name: str, moving_scene: MovingScene) -> tuple[np.ndarray, np.ndarray]:
    pair = pair_of_clip(TASKS[name], moving_scene, generator_of(0, name, ""))
    return pair.input, pair.target


@pytest.mark.parametrize(("num_frames", "predicted"), [(5, 3), (9, 6), (13, 9), (17, 12), (25, 18)])
def test_three_frames_of_four_are_predicted_from_as_many_frames_as_there_are_latents(num_frames: int, predicted: int) -> None:
    unknown = later_frames(num_frames)
    assert len(unknown) == predicted
    assert unknown[-1] == num_frames - 1
    assert unknown[0] == 1 + (num_frames - 1) // 4


@pytest.mark.parametrize(("name", "known"), [("frame_prediction", [0, 1, 2]), ("frame_interpolation", [0, 8])])
def test_frames_to_find_are_grey_and_the_others_are_those_of_the_clip(name: str, known: list[int], moving_scene: MovingScene) -> None:
    given, truth = clips_of(name, moving_scene)
    np.testing.assert_array_equal(truth, [scene.rgb for scene in moving_scene.frames])
    for index in range(NUM_FRAMES):
        np.testing.assert_array_equal(given[index], truth[index] if index in known else np.full_like(truth[index], UNKNOWN_GREY))
    choose = TASKS[name].unknown_frames
    assert choose is not None
    assert sorted([*choose(NUM_FRAMES), *known]) == list(range(NUM_FRAMES))


@pytest.mark.parametrize(("name", "still"), [("video_depth", "depth"), ("video_normals", "normals")])
def test_each_frame_is_answered_as_a_picture_is(name: str, still: str, moving_scene: MovingScene) -> None:
    given, answers = clips_of(name, moving_scene)
    for scene, picture, answer in zip(moving_scene.frames, given, answers, strict=True):
        pair = pair_of_scene(TASKS[still], scene, generator_of(0, still, ""))
        np.testing.assert_array_equal(picture, pair.input)
        np.testing.assert_array_equal(answer, pair.target)


def test_an_object_keeps_its_colour_through_the_clip(moving_scene: MovingScene) -> None:
    _, answers = clips_of("video_segmentation", moving_scene)
    ids = np.stack([objects_of(scene) for scene in moving_scene.frames])
    colours = {number: np.unique(answers[ids == number], axis=0) for number in np.unique(ids)}
    assert len(colours) > 2
    assert all(len(colour) == 1 for colour in colours.values())
    numbers = encodings.decode_instances(answers)
    for number in np.unique(numbers[numbers > 0]):
        (owner,) = np.unique(ids[numbers == number])
        np.testing.assert_array_equal(numbers == number, ids == owner)


def test_flow_is_read_back_where_it_is_not_too_fast_for_the_wheel(moving_scene: MovingScene) -> None:
    _, answers = clips_of("optical_flow", moving_scene)
    longest = SIZE / 16
    read_back = np.stack([encodings.decode_flow(answer) for answer in answers])
    is_shown = np.linalg.norm(moving_scene.flows, axis=-1) < longest
    assert is_shown.mean() > 0.8
    np.testing.assert_allclose(read_back[is_shown], moving_scene.flows[is_shown], atol=0.01 * longest)


def test_flow_leads_each_pixel_to_where_it_is_seen_next(moving_scene: MovingScene) -> None:
    _, answers = clips_of("optical_flow", moving_scene)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    hits, hopes = 0, 0
    for index, (before, after) in enumerate(zip(moving_scene.frames[:-1], moving_scene.frames[1:], strict=True)):
        flow = encodings.decode_flow(answers[index])
        column, row = np.rint(columns + flow[..., 0]).astype(int), np.rint(rows + flow[..., 1]).astype(int)
        is_inside = (before.instances > 1) & (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
        hits += (after.instances[row[is_inside], column[is_inside]] == before.instances[is_inside]).sum()
        hopes += is_inside.sum()
    assert hits > 0.85 * hopes
