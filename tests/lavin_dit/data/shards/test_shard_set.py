import gc
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from lavin_dit.data.shards.column_files import open_columns, write_columns
from lavin_dit.data.shards.digests import content_digest
from lavin_dit.data.shards.index import ShardIndex
from lavin_dit.data.shards.picture_files import SUFFIX_OF_FORMAT, PictureFormat, decode_picture, encode_picture
from lavin_dit.data.shards.samples import Images
from lavin_dit.data.shards.shard_set import ShardSet, verify_shards, write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ClipPair, ImagePair
from lavin_dit.data.world.scenes import render_scene
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256


def picture(number: int) -> Images:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def clip(number: int) -> Images:
    return np.stack([picture(1000 + 10 * number + frame) for frame in range(5)])


def pairs_of(number: int) -> dict[str, ImagePair]:
    """Two tasks that share their input, and one that asks for it."""
    return {
        "depth": ImagePair(picture(number), picture(100 + number)),
        "edges": ImagePair(picture(number).copy(), picture(200 + number)),
        "depth_to_image": ImagePair(picture(100 + number), picture(number)),
    }


def write(folder: Path, count: int = 6, shard_bytes: int = 13_000) -> Path:
    folder.mkdir()
    for split in ("train", "test"):
        with ShardWriter(folder, split, shard_bytes) as writer:
            for number in range(count if split == "train" else 1):
                writer.add(f"scene-{number}", pairs_of(number), source="nyu" if number == 1 else "scenes")
    write_manifest(folder, resolution=16, clip_frames=1)
    return folder


def write_clips(folder: Path, shard_bytes: int = 40_000) -> Path:
    with ShardWriter(folder, "train", shard_bytes, clip_frames=5) as writer:
        for number in range(3):
            writer.add(f"moving-{number}", {"video_depth": ClipPair(clip(number), clip(10 + number))}, clip=clip(number))
        writer.add("moving-alone", {}, clip=clip(20))
    with ShardWriter(folder, "test", shard_bytes, clip_frames=5):
        pass
    write_manifest(folder, resolution=16, clip_frames=5)
    return folder


def test_pictures_come_back_by_task_and_source_across_shards(tmp_path: Path) -> None:
    with ShardSet(write(tmp_path / "shards"), "train") as shards:
        assert (shards.resolution, shards.tasks) == (16, ("depth", "depth_to_image", "edges"))
        assert shards.groups == tuple((task, source) for task in shards.tasks for source in ("scenes", "nyu"))
        assert len(shards.pairs) == 18
        for pair in shards.pairs:
            expected = pairs_of(int(pair.scene.removeprefix("scene-")))[pair.task]
            np.testing.assert_array_equal(shards.image(pair.input[0]), expected.input)
            np.testing.assert_array_equal(shards.frames(pair.target), expected.target[None])
            assert pair.key == f"{pair.task}-{pair.scene}"
        assert [pair.scene for pair in shards.pairs_of("edges")] == [f"scene-{number}" for number in (0, 2, 3, 4, 5, 1)]
        assert [pair.source for pair in shards.pairs_of("edges", "nyu")] == ["nyu"]
        assert list(shards.pairs_of("unknown")) == []


def test_pairs_are_a_sequence_like_any_other(tmp_path: Path) -> None:
    with ShardSet(write(tmp_path / "shards"), "train") as shards:
        pairs = shards.pairs
        assert pairs[-1] == list(pairs)[-1] == pairs[len(pairs) - 1]
        assert pairs[3:15:4] == tuple(pairs)[3:15:4]
        for outside in (len(pairs), -len(pairs) - 1):
            with pytest.raises(IndexError):
                pairs[outside]


def test_a_picture_is_stored_once_however_many_pairs_show_it(tmp_path: Path) -> None:
    with ShardSet(write(tmp_path / "shards"), "train") as shards:
        depth, edges, inverse = (shards.pairs_of(task)[2] for task in ("depth", "edges", "depth_to_image"))
        assert depth.input == edges.input == inverse.target
        assert depth.target == inverse.input
        assert shards.indices["image"].num_members == 6 * 3


def test_a_scene_lies_in_one_shard_and_shards_keep_to_their_size(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    sizes = [path.stat().st_size for path in (folder / "train").glob("*.tar")]
    assert max(sizes) <= 13_000
    assert len(sizes) == 3
    with ShardSet(folder, "train") as shards:
        for scene in range(6):
            members = [member for pair in shards.pairs if pair.scene == f"scene-{scene}" for member in pair.input + pair.target]
            assert len({member.shard for member in members}) == 1


def test_a_scene_larger_than_a_shard_has_its_own(tmp_path: Path) -> None:
    assert len(list((write(tmp_path / "shards", count=3, shard_bytes=1) / "train").glob("*.tar"))) == 3


def test_every_member_is_found_by_its_number(tmp_path: Path) -> None:
    with ShardSet(write(tmp_path / "shards"), "train") as shards:
        index = shards.indices["image"]
        members = [index.member(number) for number in range(index.num_members)]
        assert set(members) == {member for pair in shards.pairs for member in pair.input + pair.target}
        assert [bytes.fromhex(member.digest) for member in members] == [digest.tobytes() for digest in index.digests]


def from_webdataset(paths: list[Path]) -> dict[tuple[str, str], tuple[Images, Images]]:
    """Pairs by scene and task, as the library itself finds and decodes them."""
    samples = list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False).decode("rgb8"))
    # The library leaves its last file to the garbage collector.
    gc.collect()
    return {
        (sample["__key__"], task): tuple(np.stack([sample[name] for name in names]) for names in roles)
        for sample in samples
        for task, roles in sample["pairs.json"].items()
    }


@pytest.mark.filterwarnings("ignore:.*clips-|.*shard-:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("stem", ["shard", "clips"])
def test_webdataset_reads_the_same_pixels_without_the_index(tmp_path: Path, stem: str) -> None:
    folder = write(tmp_path / "shards") if stem == "shard" else write_clips(tmp_path / "shards")
    found = from_webdataset(sorted((folder / "train").glob(f"{stem}-*.tar")))
    with ShardSet(folder, "train") as shards:
        assert {(pair.scene, pair.task) for pair in shards.pairs} == set(found)
        for pair in shards.pairs:
            for members, images in zip((pair.input, pair.target), found[pair.scene, pair.task], strict=True):
                np.testing.assert_array_equal(shards.frames(members), images)


def test_members_are_named_by_scene_task_role_and_frame(tmp_path: Path) -> None:
    names = {}
    for folder, stem in ((write(tmp_path / "still"), "shard"), (write_clips(tmp_path / "moving"), "clips")):
        with tarfile.open(folder / "train" / f"{stem}-00000.tar") as archive:
            names[stem] = archive.getnames()
    assert names["shard"][:4] == [
        "scene-0.pairs.json",
        "scene-0.depth.input.png",
        "scene-0.depth.target.png",
        "scene-0.edges.target.png",
    ]
    assert names["clips"][:7] == [
        "moving-0.pairs.json",
        *(f"moving-0.clip.{frame:03d}.png" for frame in range(5)),
        "moving-0.video_depth.target.000.png",
    ]


@pytest.mark.parametrize("photo_format", ["png", "webp", "jpeg"])
def test_photographs_take_the_format_asked_for_and_maps_and_mosaics_stay_exact(tmp_path: Path, photo_format: PictureFormat) -> None:
    photo, map_ = render_scene(0, 1, 64).rgb, render_scene(0, 2, 64).albedo
    tasks = {"depth": (photo, map_), "depth_to_image": (map_, photo), "demosaicing": (map_, photo), "my_own": (photo, photo)}
    for split in ("train", "test"):
        with ShardWriter(tmp_path, split, 2**20, photo_format=photo_format) as writer:
            writer.add("a", {task: ImagePair(*pair) for task, pair in tasks.items()})
    write_manifest(tmp_path, resolution=64, clip_frames=1)
    with ShardSet(tmp_path, "train") as shards, tarfile.open(tmp_path / "train" / "shard-00000.tar") as archive:
        assert f"a.depth.input.{SUFFIX_OF_FORMAT[photo_format]}" in archive.getnames()
        shown = {task: [shards.image(member) for member in pair.input + pair.target] for task in tasks for pair in shards.pairs_of(task)}
    for task, role in (("depth", 1), ("depth_to_image", 0), ("demosaicing", 0), ("my_own", 0), ("my_own", 1)):
        np.testing.assert_array_equal(shown[task][role], tasks[task][role])
    difference = np.abs(shown["depth"][0].astype(int) - photo)
    assert difference.mean() < (2.5 if photo_format == "jpeg" else 1e-9)


@pytest.mark.parametrize("photo_format", ["png", "webp", "jpeg"])
def test_equal_pictures_are_equal_files_and_other_formats_are_not_decoded(photo_format: PictureFormat) -> None:
    content = encode_picture(picture(3), photo_format)
    assert content == encode_picture(picture(3).copy(), photo_format)
    assert decode_picture(content, resolution=16).shape == (16, 16, 3)
    with pytest.raises(InputError, match=r"^is 16x16, not 32x32$"):
        decode_picture(content, resolution=32)
    for damaged in (b"", b"GIF89a" + content, content[:20]):
        with pytest.raises(InputError, match=r"^is not a picture in png, webp, jpeg$"):
            decode_picture(damaged, resolution=16)


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [write(tmp_path / name) for name in ("one", "two")]
    contents = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3 + 1 + 2 + 1


def test_the_manifest_counts_pairs_and_lists_every_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["resolution"], manifest["clip_frames"]) == (3, 16, 1)
    assert manifest["tasks"] == {task: {"train": 6, "test": 1} for task in ("depth", "depth_to_image", "edges")}
    assert manifest["sources"] == {"nyu": {"train": 3, "test": 0}, "scenes": {"train": 15, "test": 3}}
    assert set(manifest["files"]) == {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    verify_shards(folder)


def test_the_index_is_a_plain_file_of_safetensors(tmp_path: Path) -> None:
    path = write_clips(tmp_path / "shards") / "train" / "clips.safetensors"
    columns, _ = open_columns(path)
    loaded = load_file(path)
    assert set(loaded) == set(columns)
    for name, column in columns.items():
        np.testing.assert_array_equal(column, loaded[name])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_refused_naming_shard_and_member(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    with ShardSet(folder, "train") as shards:
        pair = shards.pairs_of("depth", "scenes")[2]
    member = pair.target[0]
    flip(folder / "train" / member.shard, member.offset + member.size // 2)
    with ShardSet(folder, "train") as shards:
        shards.image(pair.input[0])
        for _ in range(2):
            with pytest.raises(InputError, match=rf"{member.shard}: {pair.scene}\.depth\.target\.png does not match its hash in the ind"):
                shards.image(member)
    with pytest.raises(InputError, match=rf"train/{member.shard}: does not match its hash in manifest\.json"):
        verify_shards(folder)
    flip(folder / "train" / member.shard, member.offset - 300)
    with ShardSet(folder, "train") as shards, pytest.raises(InputError, match=rf"the member at byte {member.offset} does not match"):
        shards.image(member)


def test_a_picture_is_checked_whenever_it_is_read_wherever_its_shard_lies(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    for locate in (None, lambda name: folder / "train" / name):
        with ShardSet(folder, "train", locate=locate) as shards:
            member = shards.pairs[0].input[0]
            for _ in range(2):
                content = shards.content(member)
                flip(folder / "train" / member.shard, member.offset)
                with pytest.raises(InputError, match="does not match its hash in the index"):
                    shards.content(member)
                flip(folder / "train" / member.shard, member.offset)
                assert shards.content(member) == content


def test_a_shard_that_is_cut_off_or_missing_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    path = folder / "train" / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[:1700])
    with ShardSet(folder, "train") as shards, pytest.raises(InputError, match=r"shard-00000\.tar: ends before byte \d+ of the index"):
        shards.image(shards.pairs[0].input[0])
    for damage in (lambda: path.write_bytes(b""), path.unlink):
        damage()
        with ShardSet(folder, "train") as shards, pytest.raises(InputError, match=r"shard-00000\.tar: cannot be read"):
            shards.image(shards.pairs[0].input[0])
    with pytest.raises(InputError, match=r"shard-00000\.tar: is missing"):
        verify_shards(folder)


def test_shards_may_lie_elsewhere_and_be_given_up_while_the_set_is_open(tmp_path: Path) -> None:
    folder, asked = write(tmp_path / "shards"), []

    def locate(name: str) -> Path:
        asked.append(name)
        return (tmp_path / "cache" / name) if (tmp_path / "cache").exists() else folder / "train" / name

    with ShardSet(folder, "train", locate=locate) as shards:
        member = shards.pairs[0].input[0]
        before = shards.image(member)
        (folder / "train").rename(tmp_path / "cache")
        np.testing.assert_array_equal(shards.image(member), before)
        shards.release(member.shard)
        np.testing.assert_array_equal(shards.image(member), before)
    assert asked == [member.shard] * 2
    assert shards.shard_sha256[member.shard] == file_sha256(tmp_path / "cache" / member.shard)


def test_a_manifest_or_an_index_that_does_not_match_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    index, manifest = folder / "train" / "index.safetensors", folder / "manifest.json"
    flip(index, -1)
    with pytest.raises(InputError, match=r"train/index\.safetensors: does not match its hash in manifest\.json"):
        ShardSet(folder, "train")
    good = json.loads(manifest.read_text())
    without_files = {key: value for key, value in good.items() if key != "files"}
    for bad in ({**good, "format": 2}, {"format": 3}, [], {**good, "files": []}, {**good, "tasks": {"depth": 3}}, without_files):
        manifest.write_text(json.dumps(bad))
        with pytest.raises(InputError, match=r"manifest\.json: is not a manifest of shards in format 3; run prepare again$"):
            ShardSet(folder, "train")
    manifest.write_text(json.dumps({**good, "files": {"../../etc/passwd": "0"}}))
    with pytest.raises(InputError, match=r"manifest\.json: lists '\.\./\.\./etc/passwd'"):
        verify_shards(folder)
    manifest.unlink()
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read .*; run prepare first$"):
        ShardSet(folder, "test")


Lie = Callable[[dict[str, Images]], object]


def past_the_end(columns: dict[str, Images]) -> None:
    columns["offsets"] += 2**40


def of_another_size(columns: dict[str, Images]) -> None:
    columns["sizes"][0] -= 1


def of_another_hash(columns: dict[str, Images]) -> None:
    columns["digests"][0] = columns["digests"][1]


def of_what_is_no_picture(columns: dict[str, Images]) -> None:
    """An empty stretch, and what that hashes to."""
    columns["sizes"][0] = 0
    columns["digests"][0] = np.frombuffer(content_digest(b""), np.uint8)


def relist(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = file_sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def tell(folder: Path, lie: Lie, **facts: object) -> None:
    """An index that its manifest vouches for."""
    path = folder / "train" / "index.safetensors"
    columns, truth = open_columns(path)
    changed = {name: column.copy() for name, column in columns.items()}
    lie(changed)
    write_columns(path, changed, {**truth, **facts})
    relist(folder, "train/index.safetensors")


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (past_the_end, r"shard-00000\.tar: ends before byte 10995116\d+ of the index"),
        (of_another_size, r"shard-00000\.tar: scene-0\.depth\.input\.png does not match its hash in the index"),
        (of_another_hash, r"shard-00000\.tar: scene-0\.depth\.input\.png does not match its hash in the index"),
        (of_what_is_no_picture, r"shard-00000\.tar: scene-0\.depth\.input\.png is not a picture in png, webp, jpeg"),
    ],
)
def test_an_index_that_lies_about_a_picture_is_found_out_when_it_is_read(tmp_path: Path, lie: Lie, sentence: str) -> None:
    folder = write(tmp_path / "shards")
    tell(folder, lie)
    with ShardSet(folder, "train") as shards, pytest.raises(InputError, match=sentence):
        shards.image(shards.indices["image"].member(0))


def set_(name: str, value: int) -> Lie:
    def lie(columns: dict[str, Images]) -> None:
        columns[name].reshape(-1)[-1] = value

    return lie


def set_first(name: str, value: int) -> Lie:
    def lie(columns: dict[str, Images]) -> None:
        columns[name].reshape(-1)[0] = value

    return lie


def shorten(name: str) -> Lie:
    def lie(columns: dict[str, Images]) -> None:
        columns[name] = columns[name][:-1]

    return lie


LIES = {
    "a member of another sample": set_("pair_members", 0),
    "a member that is not there": set_("pair_members", 2**31),
    "a sample that is not there": set_("pair_samples", 2**31),
    "a shard that is not there": set_("sample_shards", 99),
    "members that overlap": set_("offsets", 600),
    "a member before the first header": set_first("offsets", 0),
    "a name past the end": set_("name_ends", 10**6),
    "members past the end": set_("member_ends", 10**6),
    **{f"{name} cut short": shorten(name) for name in ("digests", "pair_samples", "sample_ends", "names")},
    "no sizes": lambda columns: columns.pop("sizes"),
}


@pytest.mark.parametrize("name", LIES)
def test_an_index_that_contradicts_itself_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "shards")
    tell(folder, LIES[name])
    with pytest.raises(InputError, match=r"train/index\.safetensors: contradicts itself \(.+\); run prepare again$"):
        ShardSet(folder, "train")


def test_an_index_that_names_a_shard_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    shards = ["../../../etc/passwd", "shard-00001.tar", "shard-00002.tar"]
    tell(folder, dict.copy, shards=shards)
    with pytest.raises(InputError, match=r"index\.safetensors: names the shard '\.\./\.\./\.\./etc/passwd', which manifest\.json does not"):
        ShardSet(folder, "train")


@pytest.fixture(scope="module")
def good_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "shards", count=1) / "train" / "index.safetensors"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_index_is_refused_or_harmless(good_index: Path, data: st.DataObject) -> None:
    content = bytearray(good_index.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = good_index.with_name("damaged.safetensors")
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(InputError):
        index = ShardIndex(path)
        assert len([index.pair(row) for row in range(index.num_pairs)]) <= 3


def test_a_split_without_pairs_is_empty_and_not_broken(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    for split in ("train", "test"):
        with ShardWriter(folder, split, 1000):
            pass
    write_manifest(folder, resolution=16, clip_frames=1)
    with ShardSet(folder, "test") as shards:
        assert (len(shards.pairs), len(shards.clips), shards.groups) == (0, 0, ())


def test_a_writer_that_fails_leaves_no_index(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, "train", 1000) as writer:
            writer.add("a", pairs_of(0))
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["train"]


def test_clips_come_back_frame_by_frame_and_are_never_torn(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "shards", shard_bytes=8_000)
    verify_shards(folder)
    with ShardSet(folder, "train") as shards:
        pairs = shards.pairs_of("video_depth")
        for number, pair in enumerate(pairs):
            np.testing.assert_array_equal(shards.frames(pair.input), clip(number))
            np.testing.assert_array_equal(shards.frames(pair.target), clip(10 + number))
            assert len({frame.shard for frame in pair.input + pair.target}) == 1
        assert len({pair.input[0].shard for pair in pairs}) == 3
        assert [entry.frames for entry in shards.clips[:6]] == [frames for pair in pairs for frames in (pair.input, pair.target)]
        assert [entry.scene for entry in shards.clips[6:]] == ["moving-alone"]
        np.testing.assert_array_equal(shards.frames(shards.clips[-1].frames), clip(20))
    with ShardSet(folder, "test") as shards:
        assert len(shards.clips) == 0
    assert not (folder / "test" / "clips.safetensors").exists()
