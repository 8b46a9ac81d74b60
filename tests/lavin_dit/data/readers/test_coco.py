import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavin_dit.data.drawings.encodings import decode_instances, decode_labels, decode_mask, find_box, find_joints
from lavin_dit.data.readers.catalogue import find_items
from lavin_dit.data.world.figures import JOINT_NAMES
from lavin_dit.errors import InputError
from tests.lavin_dit.data.readers.asking import ask, target_of
from tests.lavin_dit.data.readers.trees import coco, put_json

CAR, DOG = np.s_[5:25, 5:15], np.s_[10:15, 20:25]
"""Rows and columns of the tree's two objects in the square at half size."""
DENSE = ("semantic", "instances", "foreground", "detection")


def without(folder: Path, *files: str) -> Path:
    for file in files:
        for subset in ("train2017", "val2017"):
            (folder / "annotations" / f"{file}_{subset}.json").unlink()
    return folder


def edit(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / "annotations" / f"{file}_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    return put_json(path, content)


def expected_objects() -> np.ndarray:
    objects = np.zeros((30, 30), np.uint8)
    objects[CAR], objects[DOG] = 1, 2
    return objects


@pytest.mark.parametrize("absent", ["panoptic", "instances"])
def test_objects_of_outlines_and_of_the_panoptic_map_are_numbered_from_left_to_right(tmp_path: Path, absent: str) -> None:
    tree = without(coco(tmp_path), absent)
    assert np.array_equal(decode_instances(target_of("coco", tree, "instances")), expected_objects())
    assert np.array_equal(decode_mask(target_of("coco", tree, "foreground")), expected_objects() > 0)


def test_the_largest_object_is_detected(tmp_path: Path) -> None:
    assert find_box(target_of("coco", coco(tmp_path), "detection")) == pytest.approx((5, 5, 15, 25))


def test_classes_are_numbered_in_the_order_of_categories_and_the_unlabelled_is_none(tmp_path: Path) -> None:
    labels = expected_objects()
    labels[26:] = 3
    assert np.array_equal(decode_labels(target_of("coco", coco(tmp_path), "semantic")), labels)


def test_keypoints_become_the_joints_of_figures(tmp_path: Path) -> None:
    joints = dict(zip(JOINT_NAMES, find_joints(target_of("coco", coco(tmp_path), "pose")), strict=True))
    seen = {name for name, joint in joints.items() if joint[2]}
    assert seen == set(JOINT_NAMES) - {"left_ankle"}
    rows = {"right_wrist": 10, "left_hip": 11, "right_ankle": 16}
    for name, row in rows.items():
        assert joints[name][:2] == pytest.approx(((40.5 - 10) / 2, (2 + 3 * row + 0.5) / 2), abs=1.5)


def test_a_picture_without_annotations_gives_photographs_alone(tmp_path: Path) -> None:
    tree = coco(tmp_path)
    item = find_items("coco", tree)[1]
    assert item.label == "train2017/000000000009.jpg"
    assert ask("coco", tree, item, *DENSE, "pose") == {}


@pytest.mark.parametrize(
    ("only", "tasks"),
    [("instances", {"instances", "foreground", "detection"}), ("panoptic", set(DENSE)), ("person_keypoints", {"pose"})],
)
def test_any_one_of_the_annotation_files_is_enough_for_its_tasks(tmp_path: Path, only: str, tasks: set[str]) -> None:
    tree = without(coco(tmp_path), *{"instances", "panoptic", "person_keypoints"} - {only})
    assert ask("coco", tree, find_items("coco", tree)[0], *DENSE, "pose").keys() == tasks


def test_objects_outside_of_the_square_are_not_in_its_pairs(tmp_path: Path) -> None:
    tree = without(coco(tmp_path), "panoptic")
    edit(tree, "instances", lambda content: content["annotations"][1].update(segmentation=[[0, 0, 9, 0, 9, 60, 0, 60]]))
    assert decode_instances(target_of("coco", tree, "instances")).max() == 1


@pytest.mark.parametrize("absent", ["panoptic", "instances"])
def test_a_crowd_is_foreground_but_its_picture_has_no_numbered_objects(tmp_path: Path, absent: str) -> None:
    tree = without(coco(tmp_path), absent)
    if absent == "panoptic":
        edit(tree, "instances", lambda content: content["annotations"][1].update(iscrowd=1))
    else:
        edit(tree, "panoptic", lambda content: content["annotations"][0]["segments_info"][0].update(iscrowd=1))
    pairs = ask("coco", tree, find_items("coco", tree)[0], *DENSE)
    assert "instances" not in pairs
    assert decode_mask(pairs["foreground"].target)[CAR].all()
    assert find_box(pairs["detection"].target) == pytest.approx((20, 10, 25, 15))


def test_there_is_no_pose_where_somebody_is_not_annotated(tmp_path: Path) -> None:
    tree = coco(tmp_path)
    bystander = {"id": 6, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [60, 20, 8, 20], "num_keypoints": 0, "keypoints": [0] * 51}
    edit(tree, "person_keypoints", lambda content: content["annotations"].append(bystander))
    assert ask("coco", tree, find_items("coco", tree)[0], "pose") == {}
    edit(tree, "person_keypoints", lambda content: content["annotations"][1].update(bbox=[72, 20, 8, 20]))
    assert ask("coco", tree, find_items("coco", tree)[0], "pose"), "outside of the square nobody is seen"


def test_items_are_small_however_long_their_outlines(tmp_path: Path) -> None:
    tree = without(coco(tmp_path), "panoptic")
    edit(tree, "instances", lambda content: content["annotations"][0].update(segmentation=[[20, 20, 40, 40, 20, 40] * 5000]))
    assert len(repr(find_items("coco", tree))) < 3000


def test_annotations_that_changed_since_they_were_listed_are_refused(tmp_path: Path) -> None:
    tree = without(coco(tmp_path), "panoptic")
    item = find_items("coco", tree)[0]
    edit(tree, "instances", lambda content: content["annotations"].reverse())
    with pytest.raises(InputError, match=r"instances_train2017.json: has changed since it was listed: start again"):
        ask("coco", tree, item, "instances")


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("instances", lambda content: content["images"][0].pop("file_name"), "an entry of images is not as COCO's are"),
        ("instances", lambda content: content["images"][0].update(id=float("inf")), "an entry of images is not as COCO's are"),
        ("instances", lambda content: content["annotations"][0].update(image_id="x"), "an entry of annotations is not as COCO's are"),
        ("panoptic", lambda content: content["categories"].pop(), "is of the category 193, which the file does not list"),
        ("panoptic", lambda content: content["categories"].extend({"id": i, "isthing": 1} for i in range(200, 400)), "has 203 categories"),
        ("person_keypoints", lambda content: content["categories"][0]["keypoints"].pop(), "has other keypoints than COCO's: nose, "),
    ],
)
def test_an_annotation_file_that_is_not_as_published_is_refused(
    tmp_path: Path, file: str, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    path = edit(coco(tmp_path), file, change)
    with pytest.raises(InputError, match=complaint) as caught:
        find_items("coco", tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "segmentation",
    [
        "text",
        [["x", 1]],
        [[1, 2, 3]],
        [[float("nan"), 2, 3, 4]],
        {"size": [60, 80]},
        {"size": [80, 60], "counts": [4800]},
        {"size": [60, 80], "counts": [4801]},
        {"size": [60, 80], "counts": [-1, 4801]},
        {"size": [60, 80], "counts": []},
        {"size": [60, 80], "counts": "\x07~"},
        {"size": [60, 80], "counts": "ooooooooooo"},
        {"size": [60, 80], "counts": [10**400]},
    ],
)
def test_an_outline_that_is_none_is_refused_by_its_picture(tmp_path: Path, segmentation: Any) -> None:
    tree = without(coco(tmp_path), "panoptic")
    edit(tree, "instances", lambda content: content["annotations"][0].update(segmentation=segmentation))
    with pytest.raises(InputError, match=r"_train2017.json: an object in train2017/000000000007.jpg is not as COCO's are"):
        ask("coco", tree, find_items("coco", tree)[0], "instances")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"images": [', b'{"info": [{}', b'{"a" 1}', b'{"a": [1 2]}', b'{"a": ' + b"[" * 100_000]
)
def test_a_damaged_annotation_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = coco(tmp_path) / "annotations" / "instances_train2017.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"instances_train2017.json: is no JSON with lists of annotations") as caught:
        find_items("coco", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_picture_of_another_size_than_its_annotations_is_refused(tmp_path: Path) -> None:
    tree = coco(tmp_path)
    for file in ("instances", "panoptic", "person_keypoints"):
        edit(tree, file, lambda content: content["images"][0].update(width=60, height=80))
    with pytest.raises(InputError, match=r"000000000007.jpg: is 80x60, but its annotations are of a picture of 60x80"):
        ask("coco", tree, find_items("coco", tree)[0], "instances")


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "a\0b.jpg", "x" * 5000])
def test_a_name_in_the_annotations_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    tree = without(coco(tmp_path), "panoptic", "person_keypoints")
    edit(tree, "instances", lambda content: content["images"][0].update(file_name=name))
    item = next(item for item in find_items("coco", tree) if item.part("instances"))
    with pytest.raises(InputError, match=r"outside|no usable name|cannot be read") as caught:
        ask("coco", tree, item, "instances")
    assert "\n" not in str(caught.value)
