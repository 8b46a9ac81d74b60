import dataclasses
import functools
import hashlib
import os
import pickle
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lavin_dit.data.drawings import encodings
from lavin_dit.data.tasks import TASKS, Task, generator_of, pair_of_clip, pair_of_photo, pair_of_scene, task_of
from lavin_dit.data.views import find_edges, find_largest_box, objects_of
from lavin_dit.data.world.clips import MovingScene, render_moving_scene
from lavin_dit.data.world.layout import World
from lavin_dit.data.world.scenes import FIRST_SOLID, GROUND, Scene, render_scene
from lavin_dit.evaluation.metrics import KIND_METRICS, is_better, primary_metric, score

SIZE, NUM_FRAMES = 64, 5
WORLD = World(difficulty=0.5, figures=True)
IMAGE_TASKS = [name for name, task in TASKS.items() if task.medium == "image"]
VIDEO_TASKS = [name for name, task in TASKS.items() if task.medium == "clip"]
RESTORATION = {
    "colorization",
    "inpainting",
    "denoising",
    "deblurring",
    "motion_deblurring",
    "deraining",
    "desnowing",
    "dehazing",
    "low_light",
    "super_resolution",
    "jpeg_removal",
    "demosaicing",
}
INVERSE = {
    "depth_to_image": "depth",
    "normals_to_image": "normals",
    "edges_to_image": "edges",
    "semantic_to_image": "semantic",
    "pose_to_image": "pose",
}
PERFECT = {"abs_rel": 0.0, "mean_angle": 0.0, "miou": 1.0, "pq": 1.0, "f1": 1.0, "psnr": 60.0, "epe": 0.0, "pck": 1.0, "iou": 1.0}
POOR = {"abs_rel": 0.1, "mean_angle": 15.0, "miou": 0.6, "pq": 0.4, "f1": 0.6, "psnr": 35.0, "epe": 0.3, "pck": 0.4, "iou": 0.6}
"""Primary metrics that a task of no difficulty would reach."""

Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return scene_of(0)


@pytest.fixture(scope="module")
def moving_scene() -> MovingScene:
    return moving_scene_of(0)


@functools.cache
def scene_of(index: int) -> Scene:
    return render_scene(0, index, SIZE, world=WORLD)


@functools.cache
def moving_scene_of(index: int) -> MovingScene:
    return render_moving_scene(0, index, SIZE, num_frames=NUM_FRAMES, world=WORLD)


def pair_of(task: Task, index: int = 0) -> Arrays:
    """The input and the target of a task, in a scene or in a moving scene."""
    generator = generator_of(0, task.name, f"scene-{index}")
    if task.medium == "clip":
        clips = pair_of_clip(task, moving_scene_of(index), generator)
        return clips.input, clips.target
    pictures = pair_of_scene(task, scene_of(index), generator)
    return pictures.input, pictures.target


def target_of(name: str, scene: Scene) -> np.ndarray:
    return pair_of_scene(TASKS[name], scene, generator_of(0, name, "")).target


def test_there_is_a_task_of_every_kind_and_33_in_all() -> None:
    assert len(TASKS) == 33
    assert {task.kind for task in TASKS.values()} == set(KIND_METRICS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_is_and_comes_from_scenes_or_from_clips(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.title
    assert all(sentence.endswith(".") for sentence in (task.summary, task.input, task.target))
    assert task.from_scene == (task.medium == "image")
    assert task.from_clip == (task.medium == "clip")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_can_be_sent_to_another_process(name: str) -> None:
    sent = pickle.loads(pickle.dumps(TASKS[name]))  # noqa: S301
    assert (sent.name, sent.views, sent.degrade) == (name, TASKS[name].views, TASKS[name].degrade)


@pytest.mark.parametrize("name", IMAGE_TASKS)
def test_an_image_task_makes_two_different_pictures_of_one_size(name: str, scene: Scene) -> None:
    pair = pair_of_scene(TASKS[name], scene, generator_of(0, name, "scene-0"))
    for picture in (pair.input, pair.target):
        assert picture.shape == (SIZE, SIZE, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 1
    assert (pair.input != pair.target).any()


@pytest.mark.parametrize("name", IMAGE_TASKS)
def test_one_side_of_an_image_pair_is_the_very_picture_that_all_tasks_share(name: str, scene: Scene) -> None:
    pair = pair_of_scene(TASKS[name], scene, generator_of(0, name, "scene-0"))
    assert (pair.target if name in RESTORATION | INVERSE.keys() else pair.input) is scene.rgb


@pytest.mark.parametrize("name", VIDEO_TASKS)
def test_a_video_task_makes_two_different_clips_of_one_size(name: str, moving_scene: MovingScene) -> None:
    pair = pair_of_clip(TASKS[name], moving_scene, generator_of(0, name, "clip-0"))
    for clip in (pair.input, pair.target):
        assert clip.shape == (NUM_FRAMES, SIZE, SIZE, 3)
        assert clip.dtype == np.uint8
        assert clip.std() > 1
    assert (pair.input != pair.target).any()


def test_the_restoration_tasks_and_only_they_come_from_photographs(scene: Scene) -> None:
    assert {name for name, task in TASKS.items() if task.from_photo} == RESTORATION
    with pytest.raises(AssertionError, match="depth cannot be derived from a photograph"):
        pair_of_photo(TASKS["depth"], scene.rgb, generator_of(0, "depth", "a"))


def test_a_photograph_is_spoilt_without_knowing_its_depth(scene: Scene) -> None:
    for name in RESTORATION:
        photo = pair_of_photo(TASKS[name], scene.rgb, generator_of(0, name, ""))
        rendered = pair_of_scene(TASKS[name], scene, generator_of(0, name, ""))
        assert photo.target is rendered.target
        assert (photo.input != rendered.input).any() == (name in {"deraining", "desnowing", "dehazing"})


@pytest.mark.parametrize("name", TASKS)
def test_the_truth_is_perfect_and_grey_black_and_the_input_itself_are_poor(name: str) -> None:
    task, metric = TASKS[name], primary_metric(TASKS[name])
    for index in range(3):
        given, truth = pair_of(task, index)
        perfect = score(task, truth, truth)[metric.name]
        assert perfect == PERFECT[metric.name]
        for baseline in (np.full_like(truth, 128), np.zeros_like(truth), given):
            assert is_better(metric, POOR[metric.name], score(task, baseline, truth)[metric.name])


def test_dense_targets_decode_to_the_maps_of_the_scene(scene: Scene) -> None:
    np.testing.assert_allclose(encodings.decode_depth(target_of("depth", scene)), np.maximum(scene.depth, 1.0), rtol=0.008)
    np.testing.assert_allclose(encodings.decode_normals(target_of("normals", scene)), scene.normals, atol=0.01)
    np.testing.assert_array_equal(encodings.decode_labels(target_of("semantic", scene)), scene.classes)
    np.testing.assert_array_equal(encodings.decode_mask(target_of("foreground", scene)), scene.instances >= FIRST_SOLID)
    np.testing.assert_array_equal(encodings.decode_edges(target_of("edges", scene)), find_edges(scene))
    np.testing.assert_array_equal(target_of("albedo", scene), scene.albedo)
    np.testing.assert_array_equal(target_of("shadow_removal", scene), scene.shadowless)
    np.testing.assert_allclose(encodings.find_box(target_of("detection", scene)), find_largest_box(scene), atol=0.01)


@pytest.mark.parametrize("index", range(5))
def test_each_object_is_read_back_as_one_object(index: int) -> None:
    scene = scene_of(index)
    numbers, ids = encodings.decode_instances(target_of("instances", scene)), objects_of(scene)
    for number in np.unique(numbers[numbers > 0]):
        (owner,) = np.unique(ids[numbers == number])
        np.testing.assert_array_equal(numbers == number, ids == owner)
    assert np.isin(ids[numbers == 0], [0, *_slivers(ids)]).all()


def _slivers(ids: np.ndarray) -> list[int]:
    return [number for number in np.unique(ids) if (ids == number).sum() < 64]


def test_the_joints_that_are_seen_are_found_again() -> None:
    found, seen = 0, 0
    for index in range(6):
        scene = render_scene(0, index, 128, world=World(figures=True))
        peaks = encodings.find_joints(target_of("pose", scene))
        for figure in scene.joints[:1]:
            is_seen = figure[:, 2] > 0
            seen += is_seen.sum()
            found += (np.linalg.norm(peaks[is_seen, :2] - figure[is_seen, :2], axis=-1) < 3).sum()
    assert seen > 30
    assert found > 0.9 * seen


def test_the_largest_box_holds_the_object_that_most_pixels_show(scene: Scene) -> None:
    box = find_largest_box(scene)
    assert box is not None
    left, top, right, bottom = (int(side) for side in box)
    largest = max(np.unique(scene.instances[scene.instances >= FIRST_SOLID]), key=lambda number: (scene.instances == number).sum())
    rows, columns = np.nonzero(scene.instances == largest)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (top, bottom, left, right)


def test_a_scene_without_an_object_has_no_box() -> None:
    scene = render_scene(0, 0, SIZE)
    empty = dataclasses.replace(scene, instances=np.minimum(scene.instances, GROUND))
    assert find_largest_box(empty) is None
    assert not target_of("detection", empty).any()
    assert not target_of("instances", empty).any()


@pytest.mark.parametrize(("name", "dense"), INVERSE.items())
def test_an_inverse_task_is_the_dense_one_turned_around(name: str, dense: str, scene: Scene) -> None:
    pair = pair_of_scene(TASKS[name], scene, generator_of(0, name, ""))
    np.testing.assert_array_equal(pair.input, target_of(dense, scene))
    assert TASKS[name].input_kind == TASKS[dense].kind
    assert TASKS[name].needs_figures == TASKS[dense].needs_figures


def test_randomness_belongs_to_the_pair_alone() -> None:
    def draw(*key: object) -> float:
        return float(generator_of(*key).uniform())  # type: ignore[arg-type]

    assert draw(0, "denoising", "a") == draw(0, "denoising", "a")
    assert len({draw(0, "denoising", "a"), draw(1, "denoising", "a"), draw(0, "deblurring", "a"), draw(0, "denoising", "b")}) == 4


def digest_of_all_pairs() -> str:
    """One hash of every task's first pair, and of scenes of the hardest world."""
    digest = hashlib.sha256()
    for task in TASKS.values():
        for pictures in pair_of(task):
            digest.update(pictures.tobytes())
    for index in range(6):
        scene = render_scene(1, index, SIZE, world=World(difficulty=1.0, figures=True))
        digest.update(scene.rgb.tobytes() + scene.shadowless.tobytes() + scene.albedo.tobytes())
    return digest.hexdigest()


def older_processor() -> dict[str, str]:
    """Has numpy and its linear algebra do without the wide and fused instructions that this processor has."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(found)} | ({"OPENBLAS_CORETYPE": "Nehalem"} if platform.machine() == "x86_64" else {})


@pytest.mark.parametrize("environment", [{}, older_processor()], ids=["another process", "an older processor"])
def test_pairs_are_the_same_everywhere(environment: dict[str, str]) -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_tasks; print(test_tasks.digest_of_all_pairs())"
    run = [sys.executable, "-c", program]
    other = subprocess.run(run, check=True, capture_output=True, text=True, env=os.environ | environment)
    assert other.stdout.strip() == digest_of_all_pairs()


def test_edges_lie_on_both_sides_of_every_border_and_nowhere_else(scene: Scene) -> None:
    surfaces = scene.instances.astype(int) * 256 + scene.faces
    edges = find_edges(scene)
    padded = np.pad(surfaces, 1, mode="edge")
    neighbours = [padded[1 + dy : 65 + dy, 1 + dx : 65 + dx] for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    np.testing.assert_array_equal(edges, np.any([surfaces != other for other in neighbours], axis=0))


def test_edges_are_as_thick_a_part_of_the_picture_at_every_resolution() -> None:
    shares = [find_edges(render_scene(0, 0, size)).mean() for size in (64, 128, 256)]
    assert max(shares) < 1.35 * min(shares)


def test_an_unknown_name_is_a_generic_task_of_pictures() -> None:
    task = task_of("day_to_night")
    assert (task.name, task.kind, task.medium) == ("day_to_night", "image", "image")
    assert not any((task.from_photo, task.from_scene, task.from_clip))
    assert task_of("depth") is TASKS["depth"]
