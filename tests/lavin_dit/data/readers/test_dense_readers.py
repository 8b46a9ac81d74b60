"""ADE20K, Cityscapes, DAVIS, KITTI, NYU Depth v2 and ImageNet."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from lavin_dit.data.drawings.encodings import decode_depth, decode_instances, decode_labels, decode_mask
from lavin_dit.data.readers import files
from lavin_dit.data.readers.catalogue import find_items, read_item
from lavin_dit.data.tasks import ClipPair
from lavin_dit.errors import InputError
from tests.lavin_dit.data.readers.asking import ask, target_of
from tests.lavin_dit.data.readers.trees import (
    ade20k,
    blocks,
    cityscapes,
    davis,
    imagenet,
    kitti_depth,
    nyu_depth,
    put_lines,
    put_map,
    put_photo,
)

CLIP_TASKS = ("video_segmentation", "frame_prediction", "frame_interpolation")


def test_the_classes_of_ade20k_keep_their_numbers(tmp_path: Path) -> None:
    labels = decode_labels(target_of("ade20k", ade20k(tmp_path), "semantic"))
    assert labels[0].tolist() == [0] * 30
    assert labels[20].tolist() == [1] * 15 + [150] * 15


def test_a_number_that_is_no_class_is_refused(tmp_path: Path) -> None:
    tree = ade20k(tmp_path)
    put_map(tree / "ADEChallengeData2016/annotations/training/ADE_train_00000001.png", blocks((0, 0, 80, 60, 151)))
    with pytest.raises(InputError, match=r"ADE_train_00000001.png: holds the number 151: the data set's are 0 to 150"):
        target_of("ade20k", tree, "semantic")


def test_a_map_of_another_size_than_its_picture_is_refused(tmp_path: Path) -> None:
    tree = ade20k(tmp_path)
    put_photo(tree / "ADEChallengeData2016/images/training/ADE_train_00000001.jpg", size=(60, 80))
    with pytest.raises(InputError, match=r"ADE_train_00000001.png: is 80x60, but its picture is 60x80"):
        target_of("ade20k", tree, "semantic")


def test_cityscapes_has_the_19_classes_that_are_learned_and_one_for_all_else(tmp_path: Path) -> None:
    labels = decode_labels(target_of("cityscapes", cityscapes(tmp_path), "semantic"))
    road, sky, car = 1, 11, 14
    assert labels[:, 0].tolist() == [sky] * 15 + [road] * 12 + [0] * 3
    assert labels[20].tolist() == [road] * 2 + [car] * 8 + [road] * 10 + [car] * 7 + [road] * 3


def test_numbered_objects_of_cityscapes_are_instances(tmp_path: Path) -> None:
    objects = decode_instances(target_of("cityscapes", cityscapes(tmp_path), "instances"))
    assert objects[18].tolist() == [0] * 2 + [1] * 8 + [0] * 10 + [2] * 7 + [0] * 3


def test_a_group_that_is_not_told_apart_is_not_drawn_as_background(tmp_path: Path) -> None:
    tree = cityscapes(tmp_path)
    path = tree / "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png"
    put_map(path, blocks((15, 25, 30, 45, 26000), (50, 25, 65, 45, 26), dtype=np.uint16))
    assert ask("cityscapes", tree, find_items("cityscapes", tree)[0], "instances") == {}


def test_clips_of_davis_start_every_eighth_frame_where_enough_frames_follow(tmp_path: Path) -> None:
    tree = davis(tmp_path)
    items = [item for item in find_items("davis", tree) if item.split == "train"]
    assert [item.label.rpartition("/")[2] for item in items] == ["00000.jpg", "00008.jpg"]
    assert set(ask("davis", tree, items[0], "foreground", *CLIP_TASKS)) == {"foreground", *CLIP_TASKS}
    assert set(ask("davis", tree, items[1], "foreground", *CLIP_TASKS)) == {"foreground"}


def test_objects_of_davis_keep_their_numbers_through_a_clip(tmp_path: Path) -> None:
    tree = davis(tmp_path)
    pair = ask("davis", tree, find_items("davis", tree)[0], "video_segmentation")["video_segmentation"]
    objects = decode_instances(pair.target)
    assert [np.unique(frame).tolist() for frame in objects] == [[0, 1]] * 4 + [[0, 1, 2]]
    columns = [np.nonzero(frame == 1)[1].min() for frame in objects]
    assert columns[0] < columns[-1], "the first object moves to the right"


def test_the_first_frame_of_a_clip_is_the_picture_of_its_foreground(tmp_path: Path) -> None:
    tree = davis(tmp_path)
    pairs = ask("davis", tree, find_items("davis", tree)[0], "foreground", "video_segmentation")
    assert np.array_equal(pairs["foreground"].input, pairs["video_segmentation"].input[0])
    assert np.array_equal(decode_mask(pairs["foreground"].target), decode_instances(pairs["video_segmentation"].target)[0] > 0)


def test_unknown_frames_are_grey_in_the_inputs_of_prediction_and_interpolation(tmp_path: Path) -> None:
    tree = davis(tmp_path)
    pairs = ask("davis", tree, find_items("davis", tree)[0], *CLIP_TASKS)
    for task, known in (("frame_prediction", [0, 1]), ("frame_interpolation", [0, 4])):
        pair = pairs[task]
        assert isinstance(pair, ClipPair)
        assert np.array_equal(pair.target, pairs["video_segmentation"].input)
        assert [np.array_equal(shown, frame) for shown, frame in zip(pair.input, pair.target, strict=True)] == [
            i in known for i in range(5)
        ]
        assert {int(value) for frame in range(5) if frame not in known for value in np.unique(pair.input[frame])} == {128}


def test_a_frame_that_is_missing_in_the_middle_is_refused_by_its_name(tmp_path: Path) -> None:
    tree = davis(tmp_path)
    (tree / "DAVIS/JPEGImages/480p/bear/00003.jpg").unlink()
    with pytest.raises(InputError, match=r"bear/00003.jpg: is missing, but later frames of its video are there"):
        target_of("davis", tree, "video_segmentation")
    assert target_of("davis", tree, "foreground").any(), "the first frame alone is whole"


def test_a_list_that_names_a_video_elsewhere_is_refused(tmp_path: Path) -> None:
    tree = davis(tmp_path)
    put_lines(tree / "DAVIS/ImageSets/2017/train.txt", "../../../elsewhere")
    with pytest.raises(InputError, match="lies outside of it"):
        find_items("davis", tree)


def test_depth_of_kitti_is_that_of_the_nearest_measured_pixel_in_the_rows_that_the_laser_reaches(tmp_path: Path) -> None:
    depth = decode_depth(target_of("kitti_depth", kitti_depth(tmp_path), "depth"))
    assert depth[:, :14] == pytest.approx(10, rel=0.01)
    assert depth[:, 16:] == pytest.approx(20, rel=0.01)


def test_a_picture_of_which_the_laser_measured_too_little_has_no_depth(tmp_path: Path) -> None:
    tree = kitti_depth(tmp_path)
    item = find_items("kitti_depth", tree)[0]
    depth = np.zeros((372, 1240), np.uint16)
    for rows in (slice(0, 0), slice(150, 250), slice(0, 100)):
        depth[rows, ::3] = 2560
        put_map(tree / item.part("depth"), depth)
        assert ask("kitti_depth", tree, item, "depth") == {}


def test_depth_of_nyu_is_upright_within_its_frame_and_has_no_holes(tmp_path: Path) -> None:
    tree = nyu_depth(tmp_path)
    items = find_items("nyu_depth", tree)
    assert [(item.label, item.split) for item in items] == [
        (f"nyu_depth_v2_labeled.mat: {place}", split) for place, split in enumerate(("train", "test", "train", "test"))
    ]
    for place, item in enumerate(items):
        pair = ask("nyu_depth", tree, item, "depth")["depth"]
        depth = decode_depth(pair.target)
        assert depth[:, :14] == pytest.approx(place + 2, rel=0.01)
        assert depth[:, 16:] == pytest.approx(9, rel=0.01)
        assert (np.diff(pair.input[:, :, 0].astype(int), axis=1) > 0).all(), "the tree's pictures brighten to the right"


@pytest.mark.parametrize("name", ["images", "depths"])
def test_a_variable_that_lies_in_another_file_is_refused(tmp_path: Path, name: str) -> None:
    nyu_depth(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    path.rename(tmp_path / "other.mat")
    with h5py.File(path, "w") as file, h5py.File(tmp_path / "other.mat") as other:
        for known in {"images", "depths"} - {name}:
            other.copy(known, file)
        file[name] = h5py.ExternalLink("other.mat", f"/{name}")
    with pytest.raises(InputError, match=rf"nyu_depth_v2_labeled.mat: .*it has no variable {name} of its own"):
        read_item(
            "nyu_depth", tmp_path, find_items("nyu_depth", tmp_path)[0], tasks=["depth"], resolution=8, max_megapixels=1, clip_frames=1
        )


@pytest.mark.parametrize("shape", [(3, 640, 480), (4, 640, 480, 3), (5, 3, 640, 480), (4, 3, 640, 479)])
def test_pictures_that_do_not_belong_to_their_depths_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tree = nyu_depth(tmp_path)
    item = find_items("nyu_depth", tree)[0]
    with h5py.File(tree / "nyu_depth_v2_labeled.mat", "r+") as file:
        del file["images"]
        file["images"] = np.zeros(shape, np.uint8)
    with pytest.raises(InputError, match=r"nyu_depth_v2_labeled.mat: is not the published file"):
        ask("nyu_depth", tree, item, "depth")


@pytest.mark.parametrize("split", [{"trainNdxs": [1]}, {"trainNdxs": [], "testNdxs": []}, {"trainNdxs": [0], "testNdxs": [5]}])
def test_a_split_that_does_not_fit_is_refused(tmp_path: Path, split: dict[str, list[int]]) -> None:
    tree = nyu_depth(tmp_path)
    savemat(tree / "splits.mat", split)
    with pytest.raises(InputError, match=r"splits.mat: (is not the official split|names pictures)"):
        find_items("nyu_depth", tree)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        InputError, match=r"reader nyu_depth: needs the package h5py_that_is_not_there, .*pip install 'lavin-pipelines\[datasets\]'"
    ):
        files.package("h5py_that_is_not_there.sub", reader="nyu_depth")


def test_validation_pictures_of_imagenet_may_lie_in_folders_or_without(tmp_path: Path) -> None:
    tree = imagenet(tmp_path)
    put_photo(tree / "val" / "n01440764" / "ILSVRC2012_val_00000293.JPEG")
    assert [item.label for item in find_items("imagenet", tree) if item.split == "test"] == [
        "val/ILSVRC2012_val_00000001.JPEG",
        "val/n01440764/ILSVRC2012_val_00000293.JPEG",
    ]
