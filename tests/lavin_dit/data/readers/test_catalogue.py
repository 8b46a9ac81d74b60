import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from lavin_dit.data.readers.catalogue import INVERSES, READERS, check_tasks, find_items, read_item_photo, reader_of
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.errors import InputError
from tests.lavin_dit.data.readers.asking import RESOLUTION, ask
from tests.lavin_dit.data.readers.trees import TREES, put_photo


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tree(reader: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TREES[reader](tmp_path_factory.mktemp(reader))


def test_items_of_both_splits_are_found_in_one_order_with_names_that_are_safe_in_tars(reader: str, tree: Path) -> None:
    items = find_items(reader, tree)
    assert items == find_items(reader, tree)
    assert {item.split for item in items} == {"train", "test"}
    assert len({item.scene for item in items}) == len(items)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", item.scene) for item in items)
    assert pickle.loads(pickle.dumps(items)) == items  # noqa: S301


def test_an_item_says_the_same_wherever_its_data_set_lies(reader: str, tree: Path, tmp_path: Path) -> None:
    assert find_items(reader, TREES[reader](tmp_path)) == find_items(reader, tree)


def test_every_task_of_a_reader_has_pairs(reader: str, tree: Path) -> None:
    tasks = READERS[reader].tasks
    found = {task for item in find_items(reader, tree) for task in ask(reader, tree, item, *tasks)}
    missing = set(tasks) - found
    assert all(task.startswith("foreground-") for task in missing), "the small tree has a cat and a dog alone"


def test_pairs_have_the_shape_that_was_asked_for_and_are_the_same_each_time(reader: str, tree: Path) -> None:
    for item in find_items(reader, tree):
        first, again = (ask(reader, tree, item, *READERS[reader].tasks) for _ in range(2))
        assert first.keys() == again.keys()
        for task, pair in first.items():
            shape = (5, RESOLUTION, RESOLUTION, 3) if isinstance(pair, ClipPair) else (RESOLUTION, RESOLUTION, 3)
            for picture, other in ((pair.input, again[task].input), (pair.target, again[task].target)):
                assert picture.shape == shape
                assert picture.dtype == np.uint8
                assert np.array_equal(picture, other)


def test_only_the_tasks_that_were_asked_for_are_given(reader: str, tree: Path) -> None:
    item = find_items(reader, tree)[0]
    assert ask(reader, tree, item) == {}
    for task in ask(reader, tree, item, *READERS[reader].tasks):
        assert list(ask(reader, tree, item, task)) == [task]


def test_an_inverse_task_turns_the_pair_of_its_task_around(reader: str, tree: Path) -> None:
    for task in set(INVERSES) & set(READERS[reader].tasks):
        pairs = ask(reader, tree, find_items(reader, tree)[0], task, INVERSES[task])
        there, back = pairs[task], pairs[INVERSES[task]]
        assert np.array_equal(there.input, back.target)
        assert np.array_equal(there.target, back.input)


@pytest.mark.parametrize("reader", [name for name, reader in READERS.items() if reader.gives_photos], indirect=True)
def test_photographs_are_those_of_the_pairs(reader: str, tree: Path) -> None:
    item = find_items(reader, tree)[0]
    photo = read_item_photo(reader, tree, item, resolution=RESOLUTION, max_megapixels=1.0)
    assert photo.shape == (RESOLUTION, RESOLUTION, 3)
    for pair in ask(reader, tree, item, *READERS[reader].annotates).values():
        assert isinstance(pair, ImagePair)
        assert np.array_equal(pair.input, photo)


def refusal(folder: Path, reader: str) -> str:
    with pytest.raises(InputError) as caught:
        find_items(reader, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_folder_is_refused_with_the_layout_that_it_should_have(reader: str, tmp_path: Path) -> None:
    assert re.search(rf"^{re.escape(str(tmp_path))}.* has ", refusal(tmp_path, reader))


def test_an_absent_folder_is_refused(reader: str, tmp_path: Path) -> None:
    assert "absent: is no folder" in refusal(tmp_path / "absent", reader)


def test_a_picture_that_is_missing_or_damaged_is_refused_by_its_name(reader: str, tmp_path: Path) -> None:
    tree = TREES[reader](tmp_path)
    item = next(item for item in find_items(reader, tree) if item.split == "test")
    photo = tree / (item.part("photo") or "nyu_depth_v2_labeled.mat")
    tasks = READERS[reader].tasks
    photo.write_bytes(photo.read_bytes()[:200])
    for reason in ("damaged", "cannot be read|is missing"):
        with pytest.raises(InputError, match=rf"^{re.escape(str(photo))}: .*({reason})") as caught:
            ask(reader, tree, item, *tasks) if tasks else read_item_photo(reader, tree, item, resolution=8, max_megapixels=1.0)
        assert "\n" not in str(caught.value)
        photo.unlink(missing_ok=True)


def test_an_unknown_reader_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="there is no reader 'kitty': choose one of coco, "):
        reader_of("kitty")


def test_tasks_are_checked_against_what_a_data_set_gives() -> None:
    check_tasks("ade20k", ("semantic", "semantic_to_image", "denoising"))
    with pytest.raises(InputError, match="the reader ade20k has no pairs of depth: it gives semantic, semantic_to_image, tasks of rest"):
        check_tasks("ade20k", ("semantic", "depth"))
    with pytest.raises(InputError, match=r"the reader nyu_depth has no pairs of denoising: it gives depth, depth_to_image$"):
        check_tasks("nyu_depth", ("denoising",))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    tree = TREES["imagenet"](tmp_path / "imagenet")
    outside = put_photo(tmp_path / "outside.JPEG")
    (tree / "val" / "link.JPEG").symlink_to(outside)
    item = find_items("imagenet", tree)[-1]
    with pytest.raises(InputError, match=r"names the file 'val/link.JPEG', which lies outside of it"):
        read_item_photo("imagenet", tree, item, resolution=8, max_megapixels=1.0)


def test_a_data_set_may_itself_be_a_link(tmp_path: Path) -> None:
    tree = TREES["imagenet"](tmp_path / "imagenet")
    (tmp_path / "link").symlink_to(tree)
    item = find_items("imagenet", tmp_path / "link")[0]
    assert read_item_photo("imagenet", tmp_path / "link", item, resolution=8, max_megapixels=1.0).any()
