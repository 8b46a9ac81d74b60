import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from lavin_dit.data.shards import ShardSet, ShardWriter, encode_png, verify_shards, write_manifest
from lavin_dit.errors import InputError


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def write(folder: Path, count: int = 12, shard_bytes: int = 10_000) -> Path:
    folder.mkdir()
    for split in ("train", "test"):
        with ShardWriter(folder, split, shard_bytes) as writer:
            for number in range(count if split == "train" else 2):
                task, scene = ("depth", "edges")[number % 2], f"scene-{number // 2}"
                pngs = {"input_png": encode_png(picture(number)), "target_png": encode_png(picture(100 + number))}
                writer.add(f"{task}-{scene}", task=task, scene=scene, **pngs)
    counts = {task: {"train": count // 2, "test": 1} for task in ("depth", "edges")}
    write_manifest(folder, resolution=16, clip_frames=1, counts=counts)
    return folder


def test_pictures_come_back_in_order_by_task_and_across_shards(tmp_path: Path) -> None:
    with ShardSet(write(tmp_path / "shards"), "train") as shards:
        assert shards.resolution == 16
        assert shards.tasks == ("depth", "edges")
        assert len({pair.input[0].shard for pair in shards.pairs}) > 2
        for number, pair in enumerate(shards.pairs):
            assert pair.input[0].shard == pair.target[0].shard
            np.testing.assert_array_equal(shards.image(pair.input[0]), picture(number))
            np.testing.assert_array_equal(shards.image(pair.target[0]), picture(100 + number))
        assert shards.pairs_of("edges") == shards.pairs[1::2]
        assert shards.pairs_of("unknown") == ()


def test_a_reader_without_the_index_finds_the_same_members(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    names = []
    for path in sorted((folder / "train").glob("*.tar")):
        with tarfile.open(path) as archive:
            names += [member.name for member in archive.getmembers()]
    with ShardSet(folder, "train") as shards:
        assert names == [f"{pair.key}.{part}.png" for pair in shards.pairs for part in ("input", "target")]


def test_shards_keep_to_their_size_and_hold_whole_pairs(tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in (write(tmp_path / "shards") / "train").glob("*.tar")]
    assert max(sizes) <= 10_000
    assert len(sizes) == 6


def test_a_pair_larger_than_a_shard_gets_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", count=3, shard_bytes=1)
    assert len(list((folder / "train").glob("*.tar"))) == 3


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [write(tmp_path / name) for name in ("one", "two")]
    contents = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 10


def test_the_manifest_counts_pairs_and_lists_every_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["resolution"], manifest["clip_frames"]) == (2, 16, 1)
    assert manifest["tasks"]["depth"] == {"train": 6, "test": 1}
    assert set(manifest["files"]) == {str(path.relative_to(folder)) for path in folder.glob("*/*")}
    verify_shards(folder)


def test_a_flipped_bit_is_refused_naming_shard_and_key(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    with ShardSet(folder, "train") as shards:
        pair = shards.pairs[3]
    path = folder / "train" / pair.target[0].shard
    content = bytearray(path.read_bytes())
    content[pair.target[0].offset + pair.target[0].size // 2] ^= 1
    path.write_bytes(content)
    with ShardSet(folder, "train") as shards:
        shards.image(pair.input[0])
        with pytest.raises(InputError, match=rf"{pair.target[0].shard}: the content of {pair.key} does not match its hash"):
            shards.image(pair.target[0])
    with pytest.raises(InputError, match=rf"train/{pair.target[0].shard}: does not match its hash in manifest\.json"):
        verify_shards(folder)


def test_a_shard_that_is_cut_off_or_missing_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    path = folder / "train" / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[:700])
    with ShardSet(folder, "train") as shards, pytest.raises(InputError, match=r"shard-00000\.tar: the content of depth-scene-0"):
        shards.image(shards.pairs[0].input[0])
    for damage in (lambda: path.write_bytes(b""), path.unlink):
        damage()
        with ShardSet(folder, "train") as shards, pytest.raises(InputError, match=r"shard-00000\.tar: cannot be read"):
            shards.image(shards.pairs[0].input[0])
    with pytest.raises(InputError, match=r"shard-00000\.tar: is missing"):
        verify_shards(folder)


def test_an_index_or_manifest_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards")
    index, manifest = folder / "train" / "index.json", folder / "manifest.json"
    index.write_text(index.read_text().replace("scene-1", "scene-9"))
    with pytest.raises(InputError, match=r"train/index\.json: does not match its hash in manifest\.json"):
        ShardSet(folder, "train")
    good = json.loads(manifest.read_text())
    for bad in ({**good, "format": 2}, {"format": 1}, []):
        manifest.write_text(json.dumps(bad))
        with pytest.raises(InputError, match=r"manifest\.json: is not a manifest of shards in format 1"):
            ShardSet(folder, "train")
    manifest.write_text(json.dumps({**good, "files": {"../../etc/passwd": "0"}}))
    with pytest.raises(InputError, match=r"manifest\.json: lists '\.\./\.\./etc/passwd'"):
        verify_shards(folder)
    manifest.unlink()
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read .*; run prepare first$"):
        ShardSet(folder, "test")


def test_a_split_without_pairs_is_empty_and_not_broken(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    for split in ("train", "test"):
        with ShardWriter(folder, split, 1000):
            pass
    write_manifest(folder, resolution=16, clip_frames=1, counts={})
    with ShardSet(folder, "test") as shards:
        assert shards.pairs == ()


def test_a_writer_that_fails_leaves_no_index(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, "train", 1000) as writer:
            png = encode_png(picture(0))
            writer.add("depth-a", task="depth", scene="a", input_png=png, target_png=png)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (tmp_path / "train" / "shard-00000.tar").exists()
    assert not (tmp_path / "train" / "index.json").exists()


def write_clips(folder: Path, shard_bytes: int = 10_000) -> Path:
    with ShardWriter(folder, "train", shard_bytes) as writer:
        for number in range(3):
            frames = [encode_png(picture(10 * number + frame)) for frame in range(5)]
            writer.add_clip(f"clip-{number}", scene=f"moving-{number}", frame_pngs=frames)
    with ShardWriter(folder, "test", shard_bytes):
        pass
    write_manifest(folder, resolution=16, clip_frames=5, counts={})
    return folder


def test_clips_come_back_frame_by_frame_and_are_never_torn(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "shards", shard_bytes=8_000)
    verify_shards(folder)
    with ShardSet(folder, "train") as shards:
        assert [(clip.key, clip.scene) for clip in shards.clips] == [(f"clip-{number}", f"moving-{number}") for number in range(3)]
        for number, clip in enumerate(shards.clips):
            assert len({frame.shard for frame in clip.frames}) == 1
            for frame, member in enumerate(clip.frames):
                np.testing.assert_array_equal(shards.image(member), picture(10 * number + frame))
        assert len({clip.frames[0].shard for clip in shards.clips}) == 3
    with ShardSet(folder, "test") as shards:
        assert shards.clips == ()
    assert not (folder / "test" / "clips.json").exists()


def test_a_damaged_frame_is_refused_naming_shard_and_clip(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "shards")
    with ShardSet(folder, "train") as shards:
        member = shards.clips[1].frames[2]
    path = folder / "train" / member.shard
    content = bytearray(path.read_bytes())
    content[member.offset + member.size // 2] ^= 1
    path.write_bytes(content)
    with (
        ShardSet(folder, "train") as shards,
        pytest.raises(InputError, match=rf"{member.shard}: the content of clip-1 does not match its hash"),
    ):
        shards.image(member)
    (folder / "train" / "clips.json").unlink()
    with pytest.raises(InputError, match=r"train/clips\.json: is missing"):
        ShardSet(folder, "train")
