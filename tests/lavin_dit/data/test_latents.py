import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lavin_dit.data import latents as latents_module
from lavin_dit.data.latents import LatentStore, encode_shards
from lavin_dit.data.shards.distinct import DistinctFrames
from lavin_dit.data.shards.shard_set import Member, ShardSet
from lavin_dit.errors import InputError
from lavin_dit.inference import to_model
from lavin_dit.presets import VAE_PRESETS
from lavin_dit.training.processes import Processes
from lavin_dit.vae.st_vae import Moments, STVae
from lavin_dit.weights import LatentStatistics, TrainedVae
from tests.lavin_dit.data.mixed_shards import NUM_CLIPS, NUM_PHOTOS, NUM_SCENES, SIDE, write_mixed_shards

ALONE = Processes(0, 1, torch.device("cpu"))
NUM_PICTURES = 3 * NUM_SCENES + 2 * NUM_PHOTOS


@pytest.fixture(scope="module")
def vae() -> TrainedVae:
    module = STVae(VAE_PRESETS["tiny"]).eval().requires_grad_(False)
    module.initialise(torch.Generator().manual_seed(0))
    return TrainedVae(module, LatentStatistics(shift=0.1, scale=2.0), SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed_shards(tmp_path_factory.mktemp("mixed") / "shards")


@pytest.fixture
def shards(folder: Path) -> Iterator[ShardSet]:
    with ShardSet(folder, "train") as opened:
        yield opened


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven parts of pictures, and twelve of clips."""
    monkeypatch.setattr(latents_module, "BATCH_FRAMES", 4)
    monkeypatch.setattr(latents_module, "BATCHES_OF_PART", 1)


def parts_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("latents-*"))


def test_every_picture_and_every_clip_finds_its_own_posterior(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    store = encode_shards(shards, vae, ALONE, tmp_path)
    for pair in shards.pairs:
        for frames in (pair.input, pair.target):
            expected = vae.module.encode(to_model(shards.frames(frames))[None])
            mean, logvar = (part[0] for part in (vae.statistics.normalise(expected.mean), expected.logvar))
            torch.testing.assert_close(store[frames], mean, rtol=2e-3, atol=2e-3)
            found = store.moments(frames)
            torch.testing.assert_close(found.mean, store[frames])
            # The variance is that of normalised latents.
            torch.testing.assert_close(found.logvar.exp(), logvar.exp() * vae.statistics.scale**2, rtol=1e-2, atol=1e-6)
    assert store[shards.pairs_of("mirror")[0].input].shape == (16, 1, 2, 2)
    assert store[shards.pairs_of("video_invert")[0].input].shape == (16, 2, 2, 2)


def test_latents_are_normalised_then_halved(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    contents = DistinctFrames(shards.indices["image"])
    assert len(contents) == NUM_PICTURES < latents_module.BATCH_FRAMES
    clips = torch.stack([to_model(shards.frames(frames)) for frames in contents])
    filled = torch.cat([clips, clips[-1:].expand(latents_module.BATCH_FRAMES - NUM_PICTURES, -1, -1, -1, -1)])
    expected = vae.statistics.normalise(vae.module.encode(filled).mean).half().float()
    store = encode_shards(shards, vae, ALONE, tmp_path)
    for row, frames in enumerate(contents):
        assert torch.equal(store[frames], expected[row])


def test_latents_do_not_depend_on_what_else_is_in_the_set(folder: Path, vae: TrainedVae, tmp_path: Path) -> None:
    """Neither on how it is cut into shards, which orders it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    other = write_mixed_shards(tmp_path / "shards", shard_bytes=1 << 20)
    with ShardSet(folder, "train") as small, ShardSet(other, "train") as large:
        one, two = encode_shards(small, vae, ALONE, tmp_path / "one"), encode_shards(large, vae, ALONE, tmp_path / "two")
        for pair in small.pairs:
            assert torch.equal(one[pair.target], two[pair.target])


@pytest.mark.usefixtures("small_parts")
def test_each_distinct_picture_is_encoded_once_in_batches_of_one_size(
    shards: ShardSet, vae: TrainedVae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []

    def count(pixels: torch.Tensor) -> Moments:
        sizes.append((len(pixels), pixels.shape[2]))
        return STVae.encode(vae.module, pixels)

    monkeypatch.setattr(vae.module, "encode", count)
    encode_shards(shards, vae, ALONE, tmp_path)
    assert sizes == [(4, 1)] * -(-NUM_PICTURES // 4) + [(1, 5)] * 2 * NUM_CLIPS
    (tmp_path / "index.safetensors").unlink()
    encode_shards(shards, vae, ALONE, tmp_path)
    assert len(sizes) == -(-NUM_PICTURES // 4) + 2 * NUM_CLIPS, "finished parts are kept"


@pytest.mark.usefixtures("small_parts")
def test_processes_share_the_parts_and_get_the_same_latents_to_the_bit(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = encode_shards(shards, vae, ALONE, tmp_path / "one")
    second, first = (_WithoutWaiting(rank, 2, torch.device("cpu")) for rank in (1, 0))
    with pytest.raises(FileNotFoundError):
        encode_shards(shards, vae, second, tmp_path / "two")
    assert parts_in(tmp_path / "two") == parts_in(tmp_path / "one")[1::2]
    both = encode_shards(shards, vae, first, tmp_path / "two")
    for pair in shards.pairs:
        assert torch.equal(both[pair.input], one[pair.input])


class _WithoutWaiting(Processes):
    """One of two processes that does not wait for the other."""

    def wait(self) -> None:
        return


def test_what_a_kill_cut_short_is_done_again(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    for name in ("latents-00000.partial", "index.safetensors.partial"):
        (tmp_path / name).write_bytes(b"half a file")
    store = encode_shards(shards, vae, ALONE, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.safetensors",
        "latents-00000.safetensors",
        "latents-00001.safetensors",
        "latents.json",
    ]
    assert store[shards.pairs[0].input].isfinite().all()


def test_a_finished_folder_is_opened_without_a_look_at_the_shards(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    first = encode_shards(shards, vae, ALONE, tmp_path)
    again = LatentStore(tmp_path)
    for pair in shards.pairs:
        assert torch.equal(first[pair.input], again[pair.input])


def test_content_that_was_not_encoded_is_not_found(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    store = encode_shards(shards, vae, ALONE, tmp_path)
    for digest in ("0" * 32, "f" * 32):
        with pytest.raises(KeyError, match=digest):
            store[Member("shard-00000.tar", 0, 1, digest),]


def test_latents_of_shards_of_another_format_are_refused(tmp_path: Path) -> None:
    save_file(
        {"keys": torch.zeros(3, 32, dtype=torch.uint8), "places": torch.zeros(3, 2, dtype=torch.int32)}, tmp_path / "index.safetensors"
    )
    with pytest.raises(InputError, match=r"index\.safetensors: names pictures as shards of another format do; delete .* and train again$"):
        LatentStore(tmp_path)


def test_the_statistics_are_those_of_the_whole_set(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    store = encode_shards(shards, vae, ALONE, tmp_path)
    statistics = json.loads((tmp_path / "latents.json").read_text())
    distinct = [frames for index in shards.indices.values() for frames in DistinctFrames(index)]
    values = torch.cat([store[frames].flatten(1) for frames in distinct], dim=1).double()
    assert (statistics["shift"], statistics["scale"]) == (0.1, 2.0)
    assert (statistics["num_pictures"], statistics["num_clips"]) == (NUM_PICTURES, 2 * NUM_CLIPS)
    assert statistics["channel_mean"] == pytest.approx(values.mean(dim=1).tolist())
    assert statistics["channel_deviation"] == pytest.approx(values.std(dim=1, correction=0).tolist())


@pytest.mark.usefixtures("small_parts")
def test_every_batch_is_told_of(shards: ShardSet, vae: TrainedVae, tmp_path: Path) -> None:
    told: list[None] = []
    encode_shards(shards, vae, ALONE, tmp_path, on_batch=lambda: told.append(None))
    assert len(told) == len(parts_in(tmp_path))
