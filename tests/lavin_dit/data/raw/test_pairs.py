import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavin_dit.data.raw.pairs import RawData, find_raw, read_pair, read_photo
from lavin_dit.data.world.scenes import render_scene
from lavin_dit.errors import InputError

PNG = io.BytesIO()
Image.fromarray(render_scene(0, 0, 32).rgb).save(PNG, format="png")
CONTENT = PNG.getvalue()


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_pair(folder: Path, name: str, suffix: str = ".png") -> None:
    put(folder / f"{name}_input{suffix}")
    put(folder / f"{name}_target{suffix}")


def put_tar(path: Path, *members: str, **types: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:") as archive:
        for name in members:
            header = tarfile.TarInfo(name)
            header.size = len(CONTENT)
            archive.addfile(header, io.BytesIO(CONTENT))
        for name, kind in types.items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
    return path


def find(root: Path, test_fraction: float = 0.0) -> RawData:
    return find_raw(root, seed=0, test_fraction=test_fraction)


def splits(found: RawData) -> dict[str, str]:
    return {f"{pair.task}/{pair.input.name}": pair.split for pair in found.pairs}


def test_an_absent_or_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert find(tmp_path / "absent") == find(tmp_path) == RawData((), ())


def test_any_folder_of_plain_pictures_holds_photographs(tmp_path: Path) -> None:
    for name in ("photos/a.png", "My Holiday/a.png", "My Holiday/day 2/b.jpg"):
        put(tmp_path / name)
    put_pair(tmp_path / "depth" / "train", "a")
    found = find(tmp_path)
    assert sorted(photo.source.label for photo in found.photos) == [
        str(tmp_path / name) for name in ("My Holiday/a.png", "My Holiday/day 2/b.jpg", "photos/a.png")
    ]
    assert len({photo.scene for photo in found.photos}) == 3
    assert [pair.task for pair in found.pairs] == ["depth"]


def test_pairs_are_found_in_their_splits_and_val_is_held_out(tmp_path: Path) -> None:
    put_pair(tmp_path / "depth" / "train", "a")
    put_pair(tmp_path / "depth" / "train", "b.c", ".jpeg")
    put_pair(tmp_path / "depth" / "val", "v")
    put_pair(tmp_path / "mine" / "test", "t")
    put_pair(tmp_path / "mine" / "train" / "deeper", "a")
    assert splits(find(tmp_path, 0.5)) == {
        "depth/v_input.png": "test",
        "depth/a_input.png": "train",
        "depth/b.c_input.jpeg": "train",
        "mine/t_input.png": "test",
        "mine/deeper/a_input.png": "train",
    }


def test_a_tar_is_as_good_as_a_folder(tmp_path: Path) -> None:
    put_pair(tmp_path / "one" / "depth" / "train", "a")
    put_tar(tmp_path / "two" / "depth" / "train" / "all.tar", "./a_target.png", "a_input.png", ".hidden", "README.md")
    folder, tar = (find(tmp_path / name).pairs[0] for name in ("one", "two"))
    assert folder.scene == tar.scene
    for a, b in ((folder.input, tar.input), (folder.target, tar.target)):
        assert a.read() == b.read() == CONTENT
    assert tar.input.label == f"{tmp_path}/two/depth/train/all.tar: a_input.png"


def test_scene_names_are_safe_in_tars_and_differ_where_names_do(tmp_path: Path) -> None:
    for name in ("a.b", "a_b", "ü b", "x" * 90, "deep/a_b"):
        put_pair((tmp_path / "depth" / "train" / name).parent, Path(name).name)
    scenes = [pair.scene for pair in find(tmp_path).pairs]
    assert len(set(scenes)) == 5
    assert all(len(scene) < 45 and scene.isascii() and not set(scene) & set("./ ") for scene in scenes)


def test_names_without_a_test_folder_are_held_out_by_hash_together_in_all_their_tasks(tmp_path: Path) -> None:
    for number in range(60):
        for task in ("depth", "normals"):
            put_pair(tmp_path / task / "train", f"n{number}")
    found = splits(find(tmp_path, 0.25))
    depth = {name.removeprefix("depth/"): split for name, split in found.items() if name.startswith("depth/")}
    normals = {name.removeprefix("normals/"): split for name, split in found.items() if name.startswith("normals/")}
    assert depth == normals
    assert 5 <= list(depth.values()).count("test") <= 25
    assert set(splits(find(tmp_path, 0.0)).values()) == {"train"}
    put_pair(tmp_path / "depth" / "train", "one_more")
    assert depth.items() <= {name.removeprefix("depth/"): split for name, split in splits(find(tmp_path, 0.25)).items()}.items()


def test_of_two_names_one_is_held_out_and_one_is_learned_from(tmp_path: Path) -> None:
    for fraction in (0.001, 0.999):
        for number in range(2):
            put(tmp_path / "photos" / f"{number}.png")
        assert sorted(photo.split for photo in find(tmp_path, fraction).photos) == ["test", "train"]


def test_hidden_files_readmes_and_those_of_dvc_are_ignored(tmp_path: Path) -> None:
    put_pair(tmp_path / "depth" / "train", "a")
    for name in (
        "README.md",
        ".gitignore",
        "photos.dvc",
        "depth/.DS_Store",
        "depth/train.dvc",
        "depth/train/.hidden_input.png",
        "depth/Thumbs.db",
    ):
        put(tmp_path / name, b"x")
    assert len(find(tmp_path).pairs) == 1


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        find(root)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(root), "RAW")


@pytest.mark.parametrize("missing", ["input", "target"])
def test_a_picture_without_its_partner_is_refused(tmp_path: Path, missing: str) -> None:
    other = {"input": "target", "target": "input"}[missing]
    put(tmp_path / "depth" / "train" / f"a_{other}.png")
    assert refusal(tmp_path) == f"RAW/depth/train/a_{other}.png: has no {missing}: a_{missing}.<ext> is missing"


def test_a_name_that_repeats_is_refused(tmp_path: Path) -> None:
    put_pair(tmp_path / "depth" / "train", "a")
    put(tmp_path / "depth" / "train" / "a_input.jpg")
    assert refusal(tmp_path) == "RAW/depth/train/a_input.png: repeats the name a_input of RAW/depth/train/a_input.jpg"


def test_a_name_that_repeats_inside_a_tar_or_in_val_and_test_or_among_photographs_is_refused(tmp_path: Path) -> None:
    put_pair(tmp_path / "one" / "depth" / "train", "a")
    put_tar(tmp_path / "one" / "depth" / "train" / "more.tar", "a_input.png")
    assert "more.tar: a_input.png: repeats the name a_input of RAW/depth/train/a_input.png" in refusal(tmp_path / "one")
    put_pair(tmp_path / "two" / "depth" / "test", "a")
    put_pair(tmp_path / "two" / "depth" / "val", "a")
    assert "repeats the name a_input" in refusal(tmp_path / "two")
    put(tmp_path / "three" / "photos" / "a.png")
    put(tmp_path / "three" / "photos" / "a.jpg")
    assert "repeats the name a of" in refusal(tmp_path / "three")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "RAW/a.png: lies outside of a task's folder"),
        ("My Task/train/a_input.png", "RAW/My Task: a task's folder is named with at most 40 lower-case letters"),
        ("depth/a_input.png", "RAW/depth/a_input.png: lies beside a task's splits: only the folders train, test, val do, put it into one"),
        ("depth/valid/a_input.png", "RAW/depth/valid: lies beside a task's splits"),
        ("depth/train/a.png", "RAW/depth/train/a.png: must be named <name>_input or <name>_target"),
        ("depth/train/_input.png", "RAW/depth/train/_input.png: must be named <name>_input or <name>_target"),
        ("depth/train/notes.txt", "RAW/depth/train/notes.txt: is not an image or a video that can be read here (.png, .jpg"),
        ("photos/film.mp4", "RAW/photos/film.mp4: is not an image that can be read here"),
    ],
)
def test_what_does_not_follow_the_layout_is_refused_by_name(tmp_path: Path, name: str, expected: str) -> None:
    put(tmp_path / name)
    assert refusal(tmp_path).startswith(expected)


def test_a_data_set_that_no_source_names_is_refused_with_what_to_do(tmp_path: Path) -> None:
    put(tmp_path / "coco" / "annotations" / "instances_train2017.json")
    put(tmp_path / "coco" / "train2017" / "1.jpg")
    reason = refusal(tmp_path)
    assert reason.startswith("RAW/coco/annotations/instances_train2017.json: is not an image that can be read here")
    assert reason.endswith("; a published data set is read once prepare.sources names its folder")


def test_folders_that_hold_nothing_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "one" / "depth" / "train").mkdir(parents=True)
    assert refusal(tmp_path / "one").startswith("RAW/depth: holds no pairs: put <name>_input")
    (tmp_path / "two" / "photos").mkdir(parents=True)
    assert refusal(tmp_path / "two") == "RAW/photos: holds no images"
    assert refusal(put(tmp_path / "three")) == "RAW: must be a folder with a sub-folder for each task"


def test_links_inside_are_followed_and_those_that_leave_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    put_pair(root / "depth" / "train", "a")
    put(tmp_path / "secret.png")
    inside = root / "depth" / "train" / "b_input.png"
    inside.symlink_to(root / "depth" / "train" / "a_input.png")
    put(root / "depth" / "train" / "b_target.png")
    assert len(find(root).pairs) == 2
    inside.unlink()
    inside.symlink_to(tmp_path / "secret.png")
    assert refusal(root).startswith("RAW/depth/train/b_input.png: is a symbolic link that leaves RAW")
    inside.unlink()
    inside.symlink_to("nowhere.png")
    assert refusal(root) == "RAW/depth/train/b_input.png: is a symbolic link that leads nowhere"
    inside.unlink()
    inside.symlink_to(root / "depth")
    assert refusal(root).startswith("RAW/depth/train/b_input.png: is a symbolic link to a folder")


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    put_pair(tmp_path / "real" / "depth" / "train", "a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(find(tmp_path / "link").pairs) == 1


@pytest.mark.parametrize("member", ["/abs_input.png", "../up_input.png", "a/../../up_input.png", "\\abs_input.png"])
def test_a_tar_whose_member_would_leave_it_is_refused(tmp_path: Path, member: str) -> None:
    put_tar(tmp_path / "depth" / "train" / "x.tar", member)
    assert refusal(tmp_path).startswith(f"RAW/depth/train/x.tar: its member {member!r} would lie outside of the archive")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_with_links_or_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    put_tar(tmp_path / "depth" / "train" / "x.tar", "a_input.png", a_target=kind)
    assert refusal(tmp_path).startswith("RAW/depth/train/x.tar: its member 'a_target' is a link or a special file")


def test_tars_that_are_cut_off_damaged_or_compressed_are_refused(tmp_path: Path) -> None:
    path = put_tar(tmp_path / "depth" / "train" / "x.tar", "a_input.png", "a_target.png")
    whole = path.read_bytes()
    member = 512 + -(-len(CONTENT) // 512) * 512
    bad_header = bytearray(whole)
    bad_header[member + 5] ^= 0xFF
    for damaged in (b"", whole[:100], whole[: member + 100], whole[: member + 800], whole[: 2 * member], bytes(bad_header), b"text" * 500):
        path.write_bytes(damaged)
        assert refusal(tmp_path).startswith("RAW/depth/train/x.tar: cannot be read as an uncompressed tar")
    path.write_bytes(whole)
    assert len(find(tmp_path).pairs) == 1


def test_a_pair_is_read_at_the_resolution_and_labels_keep_their_colours(tmp_path: Path) -> None:
    for task in ("semantic", "depth"):
        put_pair(tmp_path / task / "train", "a")
    depth, semantic = (read_pair(pair, resolution=16, max_megapixels=1.0) for pair in find(tmp_path).pairs)
    assert semantic.input.shape == semantic.target.shape == (16, 16, 3)
    np.testing.assert_array_equal(depth.input, depth.target)
    np.testing.assert_array_equal(depth.input, semantic.input)
    colours = {tuple(colour) for colour in np.asarray(Image.open(PNG)).reshape(-1, 3)}
    assert {tuple(colour) for colour in semantic.target.reshape(-1, 3)} <= colours


def test_a_target_of_another_size_is_refused(tmp_path: Path) -> None:
    put_pair(tmp_path / "depth" / "train", "a")
    other = io.BytesIO()
    Image.new("RGB", (16, 32)).save(other, format="png")
    put(tmp_path / "depth" / "train" / "a_target.png", other.getvalue())
    with pytest.raises(InputError, match=r"a_target\.png: is 16x32, but its input is 32x32: both must have one size$"):
        read_pair(find(tmp_path).pairs[0], resolution=16, max_megapixels=1.0)


def test_a_damaged_picture_is_refused_by_its_name_in_a_tar_too(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.png", CONTENT[:200])
    with pytest.raises(InputError, match=r"photos/a\.png: cannot be read as an image"):
        read_photo(find(tmp_path).photos[0], resolution=16, max_megapixels=1.0)
    path = put_tar(tmp_path / "depth" / "train" / "x.tar", "a_input.png", "a_target.png")
    content = bytearray(path.read_bytes())
    content[512 : 512 + len(CONTENT)] = bytes(len(CONTENT))
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tar: a_input\.png: cannot be read as an image"):
        read_pair(find(tmp_path).pairs[0], resolution=16, max_megapixels=1.0)
