from pathlib import Path

import numpy as np
import pytest

from lavin_dit.data.drawings.encodings import decode_instances, decode_labels, decode_mask, find_box
from lavin_dit.data.readers.catalogue import find_items
from lavin_dit.data.readers.pascal_voc import CLASS_TASKS, PASCAL_5I
from lavin_dit.errors import InputError
from tests.lavin_dit.data.readers.asking import ask, target_of
from tests.lavin_dit.data.readers.trees import pascal_voc, put_lines, voc_object

TOP = "VOCdevkit/VOC2012"
BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;">]><annotation>&c;</annotation>'


def annotate(tree: Path, text: str) -> Path:
    return put_lines(tree / TOP / "Annotations" / "2007_000032.xml", text)


def test_void_goes_to_what_is_nearest(tmp_path: Path) -> None:
    labels = decode_labels(target_of("pascal_voc", pascal_voc(tmp_path), "semantic"))
    row = labels[10]
    assert row.tolist() == [0] * 5 + [8] * 9 + [12] * 11 + [0] * 5


def test_a_mask_of_one_class_is_a_task_of_its_own_where_the_class_is_seen(tmp_path: Path) -> None:
    tree = pascal_voc(tmp_path)
    pairs = ask("pascal_voc", tree, find_items("pascal_voc", tree)[0], *CLASS_TASKS)
    assert sorted(pairs) == ["foreground-cat", "foreground-dog"]
    labels = decode_labels(target_of("pascal_voc", tree, "semantic"))
    assert np.array_equal(decode_mask(pairs["foreground-cat"].target), labels == 8)
    assert np.array_equal(decode_mask(pairs["foreground-dog"].target), labels == 12)


def test_the_four_folds_of_pascal_5i_hold_out_each_class_once() -> None:
    assert [len(fold) for fold in PASCAL_5I] == [5, 5, 5, 5]
    assert sorted(task for fold in PASCAL_5I for task in fold) == sorted(CLASS_TASKS)
    assert PASCAL_5I[0][0] == "foreground-aeroplane"
    assert PASCAL_5I[3][4] == "foreground-tvmonitor"


def test_objects_are_numbered_from_left_to_right_and_are_the_foreground(tmp_path: Path) -> None:
    tree = pascal_voc(tmp_path)
    objects = decode_instances(target_of("pascal_voc", tree, "instances"))
    assert np.unique(objects[10]).tolist() == [0, 1, 2]
    assert np.array_equal(decode_mask(target_of("pascal_voc", tree, "foreground")), objects > 0)


def test_the_largest_box_that_is_not_difficult_is_detected(tmp_path: Path) -> None:
    box = find_box(target_of("pascal_voc", pascal_voc(tmp_path), "detection"))
    assert box == pytest.approx(((41 - 10) / 2, 5, 25, 25), abs=0.05)


def test_what_any_list_holds_out_is_held_out(tmp_path: Path) -> None:
    tree = pascal_voc(tmp_path)
    put_lines(tree / TOP / "ImageSets/Main/val.txt", "2007_000032", "2007_000033")
    assert {item.split for item in find_items("pascal_voc", tree)} == {"test"}


def test_pictures_with_boxes_alone_are_found_too(tmp_path: Path) -> None:
    tree = pascal_voc(tmp_path)
    put_lines(tree / TOP / "ImageSets/Main/train.txt", "2007_000032", "2008_000001")
    assert [item.label.rpartition("/")[2] for item in find_items("pascal_voc", tree)] == [
        "2007_000032.jpg",
        "2007_000033.jpg",
        "2008_000001.jpg",
    ]


def test_the_folder_of_the_year_may_be_named_itself(tmp_path: Path) -> None:
    tree = pascal_voc(tmp_path)
    item = find_items("pascal_voc", tree / TOP)[0]
    assert item.label == "JPEGImages/2007_000032.jpg"
    assert ask("pascal_voc", tree / TOP, item, "semantic")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<annotation>",
        BOMB,
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        "<annotation><object><name>cat</name></object></annotation>",
        "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
        f"<annotation>{voc_object('cat', (1, 2, 3, 4)).replace('2', 'two')}</annotation>",
    ],
)
def test_an_annotation_that_is_damaged_or_expands_is_refused(tmp_path: Path, text: str) -> None:
    tree = pascal_voc(tmp_path)
    path = annotate(tree, text)
    with pytest.raises(InputError, match="is no annotation of Pascal VOC, or is damaged") as caught:
        target_of("pascal_voc", tree, "detection")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_picture_without_objects_has_no_box(tmp_path: Path) -> None:
    tree = pascal_voc(tmp_path)
    annotate(tree, "<annotation/>")
    assert ask("pascal_voc", tree, find_items("pascal_voc", tree)[0], "detection") == {}
