"""Sets of shards of which a window is at hand at a time: in a folder, and in a real S3 server on loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lavin_dit.data.latents import encode_shards
from lavin_dit.data.reading.cache_folder import CacheFolder
from lavin_dit.data.reading.remote_shards import open_remote
from lavin_dit.data.reading.shard_windows import ShardWindows, WholeSet
from lavin_dit.data.shards.distinct import unique_members
from lavin_dit.data.shards.shard_set import SPLITS, ShardSet, write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.presets import VAE_PRESETS
from lavin_dit.training.processes import Processes
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import LatentStatistics, TrainedVae
from tests.lavin_dit.data.mixed_shards import SIDE, picture, write_mixed_shards
from tests.s3_server import BUCKET, S3Server, serve

URL = f"s3://{BUCKET}/sets/mixed"
WINDOW = 2
ROOM = 2 * 3 * WINDOW


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of many small shards."""
    return write_mixed_shards(tmp_path_factory.mktemp("mixed") / "shards", shard_bytes=1 << 13)


@pytest.fixture
def objects(folder: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same set as objects, seen as plain files."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(server.bucket, ignore_errors=True)
    return Path(shutil.copytree(folder, server.bucket / "sets" / "mixed"))


def cache_for(folder: Path, shards: Path, *, room: int = ROOM) -> CacheFolder:
    """With room for a few shards."""
    return CacheFolder(folder, room * max(path.stat().st_size for path in shards.glob("train/*.tar")))


def cached_shards(cache: CacheFolder) -> list[Path]:
    return [path for path in cache.folder.iterdir() if path.is_file() and not path.suffix]


def test_an_epoch_of_windows_shows_every_picture_and_every_clip(folder: Path) -> None:
    with ShardSet(folder, "train") as shards:
        image, clip = shards.indices["image"], shards.indices["clip"]
        windows = ShardWindows(shards, window_shards=WINDOW, seed=0)
        assert windows.clips
        pictures = [windows.pictures.at(position) for position in range(image.num_members)]
        assert len(set(pictures)) == image.num_members
        assert {member.digest for member in pictures} == {member.digest for member in unique_members(shards)}
        assert {windows.clips.at(position) for position in range(clip.num_clips)} == set(shards.clips)
        assert min(len(image.shards), len(clip.shards)) > 2 * WINDOW


def test_shards_that_are_done_with_are_let_go(folder: Path) -> None:
    with ShardSet(folder, "train") as shards:
        windows = ShardWindows(shards, window_shards=WINDOW, seed=0)
        assert windows.clips
        for position in range(2 * shards.indices["image"].num_members):
            shards.image(windows.pictures.at(position))
            shards.frames(windows.clips.at(position).frames)
            assert _num_mapped(folder) <= 4 * WINDOW


def _num_mapped(folder: Path) -> int:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(line.endswith(".tar") and str(folder) in line for line in lines)


def test_a_remote_set_shows_what_a_local_one_does_within_its_room(objects: Path, folder: Path, tmp_path: Path) -> None:
    cache = cache_for(tmp_path, folder)
    with ShardSet(folder, "train") as local, open_remote(URL, folder, "train", cache, setting="shards") as remote:
        assert remote.cache
        windows = ShardWindows(remote.shards, window_shards=WINDOW, seed=0, cache=remote.cache)
        assert windows.clips
        num_pictures = local.indices["image"].num_members
        for position in range(num_pictures + 20):
            member, clip = windows.pictures.at(position), windows.clips.at(position // 8)
            np.testing.assert_array_equal(remote.shards.image(member), local.image(member))
            np.testing.assert_array_equal(remote.shards.frames(clip.frames), local.frames(clip.frames))
            assert len(remote.cache.held) <= 4 * WINDOW
            assert sum(path.stat().st_size for path in cached_shards(cache)) <= cache.max_bytes
        assert sum(len(index.shards) for index in local.indices.values()) > ROOM, "not all of it has room"


def test_latents_of_a_remote_set_are_those_of_a_local_one(
    objects: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavin_dit.data.latents.BATCH_FRAMES", 5)
    monkeypatch.setattr("lavin_dit.data.latents.BATCHES_OF_PART", 1)
    module = STVae(VAE_PRESETS["tiny"]).eval().requires_grad_(False)
    module.initialise(torch.Generator().manual_seed(0))
    vae, alone = TrainedVae(module, LatentStatistics(0.1, 2.0), SIDE), Processes(0, 1, torch.device("cpu"))
    for name in ("local", "remote"):
        (tmp_path / name).mkdir()
    cache = cache_for(tmp_path / "cache", folder, room=5)
    with ShardSet(folder, "train") as local, open_remote(URL, folder, "train", cache, setting="shards") as remote:
        one = encode_shards(local, vae, alone, tmp_path / "local")
        two = encode_shards(remote.shards, vae, alone, tmp_path / "remote", cache=remote.cache)
        assert all(torch.equal(one[pair.target], two[pair.target]) for pair in local.pairs)
        assert 0 < len(cached_shards(cache)) < sum(len(index.shards) for index in local.indices.values()), "not all of it has room"


def test_processes_that_start_again_fetch_the_manifest_alone(objects: Path, server: S3Server, folder: Path, tmp_path: Path) -> None:
    cache = cache_for(tmp_path, folder)
    for _ in range(2):
        before = len(server.downloads())
        with open_remote(URL, folder, "train", cache, setting="shards") as remote:
            remote.shards.image(remote.shards.pairs[0].input[0])
    assert [Path(name).name for name in server.downloads()[before:]] == ["manifest.json"]


def test_another_set_is_refused(objects: Path, folder: Path, tmp_path: Path) -> None:
    (objects / "manifest.json").write_text("{}")
    with (
        pytest.raises(InputError, match=rf"^{URL}/manifest\.json: is not that of {folder}, the set to be trained on; upload that one$"),
        open_remote(URL, folder, "train", CacheFolder(tmp_path, 1), setting="shards"),
    ):
        pass


def test_an_address_without_a_set_is_refused(objects: Path, folder: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=rf"^s3://{BUCKET}/sets/none/manifest\.json: is missing$"),
        open_remote(f"s3://{BUCKET}/sets/none", folder, "train", CacheFolder(tmp_path, 1), setting="shards"),
    ):
        pass


def test_a_place_where_no_cache_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=rf"^{tmp_path}/file/shards: cannot be made \(Not a directory\); XDG_CACHE_HOME names another"):
        CacheFolder(tmp_path / "file" / "shards", 1)


def test_a_damaged_shard_in_the_cache_is_never_taken_for_data(objects: Path, folder: Path, tmp_path: Path) -> None:
    with open_remote(URL, folder, "train", cache_for(tmp_path, folder), setting="shards") as remote:
        member = remote.shards.pairs[0].input[0]
        assert remote.cache
        path = remote.cache.locate(member.shard)
        assert path.name == file_sha256(folder / "train" / member.shard)
        content = bytearray(path.read_bytes())
        content[member.offset] ^= 1
        path.write_bytes(content)
    with (
        ShardSet(folder, "train") as local,
        open_remote(URL, folder, "train", CacheFolder(tmp_path, 1 << 20), setting="shards") as remote,
    ):
        np.testing.assert_array_equal(remote.shards.image(member), local.image(member), "the next process fetches it again")


def test_pictures_of_clips_are_shown_where_there_are_no_others(tmp_path: Path) -> None:
    for split in SPLITS:
        with ShardWriter(tmp_path, split, 1 << 12, clip_frames=5) as writer:
            for number in range(4):
                frames = np.stack([picture(5 * number + frame) for frame in range(5)])
                writer.add(str(number), {}, clip=frames)
    write_manifest(tmp_path, resolution=SIDE, clip_frames=5)
    with ShardSet(tmp_path, "train") as shards:
        windows, whole = ShardWindows(shards, window_shards=1, seed=0), WholeSet(shards, seed=0)
        shown = [{stream.pictures.at(position).digest for position in range(20)} for stream in (windows, whole)]
        assert shown[0] == shown[1] == {member.digest for member in unique_members(shards)}
