import numpy as np
import pytest

from lavin_dit.data import encodings
from lavin_dit.data.scenes import FIRST_SOLID, Scene, render_scene
from lavin_dit.data.tasks import TASKS, find_edges, generator_of, pair_of_photo, pair_of_scene, task_of

RESTORATION = {"colorization", "inpainting", "denoising", "deblurring", "super_resolution"}


@pytest.fixture(scope="module")
def scene() -> Scene:
    return render_scene(0, 0, 64)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_makes_two_different_pictures_of_one_size_from_a_scene(name: str, scene: Scene) -> None:
    pair = pair_of_scene(TASKS[name], scene, generator_of(0, name, "scene-0"))
    for picture in (pair.input, pair.target):
        assert picture.shape == scene.rgb.shape
        assert picture.dtype == np.uint8
    assert (pair.input != pair.target).any()
    clean = pair.target if TASKS[name].from_photo else pair.input
    np.testing.assert_array_equal(clean, scene.rgb)


def test_the_restoration_tasks_and_only_they_come_from_photographs(scene: Scene) -> None:
    assert {name for name, task in TASKS.items() if task.from_photo} == RESTORATION
    with pytest.raises(AssertionError, match="depth cannot be derived from a photograph"):
        pair_of_photo(TASKS["depth"], scene.rgb, generator_of(0, "depth", "a"))


def test_dense_targets_decode_to_the_maps_of_the_scene(scene: Scene) -> None:
    def target(name: str) -> np.ndarray:
        return pair_of_scene(TASKS[name], scene, generator_of(0, name, "")).target

    np.testing.assert_allclose(encodings.decode_depth(target("depth")), np.maximum(scene.depth, 1.0), rtol=0.008)
    np.testing.assert_allclose(encodings.decode_normals(target("normals")), scene.normals, atol=0.01)
    np.testing.assert_array_equal(encodings.decode_labels(target("semantic")), scene.classes)
    np.testing.assert_array_equal(encodings.decode_mask(target("foreground")), scene.instances >= FIRST_SOLID)
    np.testing.assert_array_equal(encodings.decode_edges(target("edges")), find_edges(scene))


def test_names_are_keys_of_the_table_and_every_task_says_what_it_is() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert task.title
        assert task.summary.endswith(".")
        assert task.from_scene


def test_an_unknown_name_is_a_generic_task_of_pictures() -> None:
    task = task_of("day_to_night")
    assert (task.name, task.kind, task.from_photo, task.from_scene) == ("day_to_night", "image", False, False)
    assert task_of("depth") is TASKS["depth"]


def test_randomness_belongs_to_the_pair_alone() -> None:
    def draw(*key: object) -> float:
        return float(generator_of(*key).uniform())  # type: ignore[arg-type]

    assert draw(0, "denoising", "a") == draw(0, "denoising", "a")
    assert len({draw(0, "denoising", "a"), draw(1, "denoising", "a"), draw(0, "deblurring", "a"), draw(0, "denoising", "b")}) == 4


def test_edges_lie_on_both_sides_of_every_border_and_nowhere_else(scene: Scene) -> None:
    surfaces = scene.instances.astype(int) * 256 + scene.faces
    edges = find_edges(scene)
    padded = np.pad(surfaces, 1, mode="edge")
    neighbours = [padded[1 + dy : 65 + dy, 1 + dx : 65 + dx] for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    np.testing.assert_array_equal(edges, np.any([surfaces != other for other in neighbours], axis=0))


def test_edges_are_as_thick_a_part_of_the_picture_at_every_resolution() -> None:
    shares = [find_edges(render_scene(0, 0, size)).mean() for size in (64, 128, 256)]
    assert max(shares) < 1.35 * min(shares)
