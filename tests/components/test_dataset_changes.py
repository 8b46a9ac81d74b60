"""What changed between two versions, counted as people do, and the page that shows it."""

import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data_version import file_md5
from components.dataset_changes import find_changes
from components.dataset_page import render_changes
from components.dataset_versions import Version
from lavin_dit.data.shards.picture_files import encode_png

PNG = encode_png(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))
NAMES = st.sampled_from(
    [
        *(
            f"{task}/{split}/{name}_{role}.png"
            for task in ("depth", "mine")
            for split in ("train", "val")
            for name in "ab"
            for role in ("input", "target")
        ),
        "photos/deep/a.jpg",
        "coco/val2017/1.jpg",
        "coco/annotations.json",
        "depth/train/é_input/10.png",
        "depth/train/notes.txt",
        "stray",
    ]
)
FILES = st.dictionaries(NAMES, st.sampled_from(["0" * 32, "1" * 32]))


@dataclass(frozen=True)
class Folder:
    """Where a version's files lie."""

    root: Path

    def path(self, name: str) -> Path:
        return self.root / name

    def fetch(self, names: Iterable[str]) -> None:
        list(names)


def of_names(files: Mapping[str, str]) -> Version:
    return Version("made up", files, Folder(Path("nowhere")))


def on_disk(root: Path, files: Mapping[str, bytes]) -> Version:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return Version(root.name, {name: file_md5(root / name) for name in files}, Folder(root))


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


@given(FILES)
def test_a_version_does_not_differ_from_itself(files: dict[str, str]) -> None:
    assert find_changes(of_names(files), of_names(files)) == {}


@given(FILES, FILES)
def test_what_one_way_adds_the_other_way_removes(old: dict[str, str], new: dict[str, str]) -> None:
    forth, back = find_changes(of_names(old), of_names(new)), find_changes(of_names(new), of_names(old))
    assert forth.keys() == back.keys()
    for group, changes in forth.items():
        assert changes.added == back[group].removed
        assert changes.removed == back[group].added
        assert changes.changed == tuple((after, before) for before, after in back[group].changed)
    assert bool(forth) == (old != new)


def test_pairs_clips_photographs_and_other_files_are_counted_as_such() -> None:
    new = {f"depth/train/{name}_{role}.png": "0" * 32 for name in ("a", "deep/a") for role in ("input", "target")}
    new |= {f"video_depth/val/a_{role}/{frame}.png": "0" * 32 for role in ("input", "target") for frame in range(5)}
    new |= {"photos/a.jpg": "0" * 32, "coco/val2017/1.jpg": "0" * 32, "coco/annotations.json": "0" * 32}
    counts = {group: changes.counts for group, changes in find_changes(of_names({}), of_names(new)).items()}
    assert counts == {
        ("coco", "", "file"): (1, 0, 0),
        ("coco", "", "photograph"): (1, 0, 0),
        ("depth", "train", "pair"): (2, 0, 0),
        ("photos", "", "photograph"): (1, 0, 0),
        ("video_depth", "test", "pair"): (1, 0, 0),
    }


def test_a_clip_whose_one_frame_differs_is_one_changed_pair() -> None:
    old = {f"video_depth/train/a_{role}/{frame}.png": "0" * 32 for role in ("input", "target") for frame in range(5)}
    changes = find_changes(of_names(old), of_names(old | {"video_depth/train/a_target/3.png": "1" * 32}))
    assert [changes.counts for changes in changes.values()] == [(0, 0, 1)]


def test_pairs_that_move_into_a_tar_have_not_changed(tmp_path: Path) -> None:
    pair = {"a_input.png": PNG, "a_target.png": PNG}
    loose = on_disk(tmp_path / "loose", {f"depth/train/{name}": content for name, content in pair.items()})
    packed = on_disk(tmp_path / "packed", {"depth/train/all.tar": tar_of(pair)})
    assert find_changes(loose, packed) == {}


def test_a_tar_that_cannot_be_read_counts_as_a_file(tmp_path: Path) -> None:
    broken = on_disk(tmp_path / "broken", {"depth/train/all.tar": b"no tar"})
    assert list(find_changes(of_names({}), broken)) == [("depth", "train", "file")]


def test_the_page_shows_what_it_can_and_says_why_it_cannot(tmp_path: Path) -> None:
    new = on_disk(
        tmp_path / "new",
        {
            "depth/train/a_input.png": PNG,
            "depth/train/a_target.png": b"damaged",
            "photos/<b>.png": PNG,
            "video_depth/train/a_input/1.png": PNG,
            "video_depth/train/a_input/2.png": PNG,
            "video_depth/train/a_target.tar": b"no tar",
        },
    )
    page = render_changes(of_names({}), new, find_changes(of_names({}), new), max_shown=3)
    assert page.count("data:image/png") == 3
    assert "target: cannot be read as an image" in page
    assert "input: 8x8, 2 frames" in page
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_of_many_items_some_are_shown_from_all_over_them(tmp_path: Path) -> None:
    new = on_disk(tmp_path / "new", {f"photos/{number:02}.png": PNG for number in range(20)})
    page = render_changes(of_names({}), new, find_changes(of_names({}), new), max_shown=4)
    assert re.findall(r"<h3>(\d+)\.png", page) == ["00", "05", "10", "15"]
    assert "And 16 more." in page


@pytest.mark.parametrize("max_shown", [1, 5])
def test_equal_versions_give_a_page_that_says_so(max_shown: int) -> None:
    assert "Nothing differs" in render_changes(of_names({}), of_names({}), {}, max_shown=max_shown)
