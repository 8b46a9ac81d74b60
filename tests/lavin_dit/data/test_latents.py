from pathlib import Path

import pytest
import torch

from lavin_dit.data import latents as latents_module
from lavin_dit.data.latents import encode_shards, unique_members
from lavin_dit.data.shards import ShardSet
from lavin_dit.inference import encode_images, to_model
from lavin_dit.presets import VAE_PRESETS
from lavin_dit.training.processes import Processes
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import LatentStatistics, TrainedVae

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def vae() -> TrainedVae:
    module = STVae(VAE_PRESETS["tiny"]).eval().requires_grad_(False)
    module.initialise(torch.Generator().manual_seed(0))
    return TrainedVae(module, LatentStatistics(shift=0.1, scale=2.0), 16)


def test_tasks_share_their_scenes_pictures(tiny_shards: Path) -> None:
    with ShardSet(tiny_shards, "train") as shards:
        members = unique_members(shards)
        assert len(shards.pairs) == 16
        assert len(members) == 8 + 8 + 8
        assert len({member.sha256 for member in members}) == len(members)
        assert {member.sha256 for member in members} == {m.sha256 for pair in shards.pairs for m in pair.input + pair.target}
        assert unique_members(shards) == members


def test_every_picture_finds_its_own_normalised_latents(tiny_shards: Path, vae: TrainedVae, tmp_path: Path) -> None:
    with ShardSet(tiny_shards, "train") as shards:
        store = encode_shards(shards, vae, ALONE, tmp_path)
        for pair in shards.pairs:
            expected = encode_images(vae, to_model(shards.image(pair.target[0]))[None])[0]
            torch.testing.assert_close(store[pair.target], expected, rtol=2e-3, atol=2e-3)


def test_each_distinct_picture_is_encoded_once(tiny_shards: Path, vae: TrainedVae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_module, "ENCODE_BATCH", 5)
    sizes: list[int] = []

    def count(vae: TrainedVae, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return encode_images(vae, images)

    monkeypatch.setattr(latents_module, "encode_images", count)
    with ShardSet(tiny_shards, "train") as shards:
        encode_shards(shards, vae, ALONE, tmp_path)
        assert sizes == [5, 5, 5, 5, 4]
        encode_shards(shards, vae, ALONE, tmp_path)
    assert sum(sizes) == 24, "finished parts are kept"


def test_processes_share_the_parts_and_get_the_same_latents_to_the_bit(
    tiny_shards: Path, vae: TrainedVae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents_module, "ENCODE_BATCH", 4)
    monkeypatch.setattr(latents_module, "PART_PICTURES", 8)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with ShardSet(tiny_shards, "train") as shards:
        one = encode_shards(shards, vae, ALONE, tmp_path / "one")
        second, first = (_WithoutWaiting(rank, 2, torch.device("cpu")) for rank in (1, 0))
        with pytest.raises(FileNotFoundError):
            encode_shards(shards, vae, second, tmp_path / "two")
        assert [path.name for path in (tmp_path / "two").iterdir()] == ["latents-00001.safetensors"]
        both = encode_shards(shards, vae, first, tmp_path / "two")
        for pair in shards.pairs:
            assert torch.equal(both[pair.input], one[pair.input])


class _WithoutWaiting(Processes):
    """One of two processes that does not wait for the other."""

    def wait(self) -> None:
        return


def test_a_part_that_a_kill_cut_short_is_encoded_again(tiny_shards: Path, vae: TrainedVae, tmp_path: Path) -> None:
    with ShardSet(tiny_shards, "train") as shards:
        (tmp_path / "latents-00000.partial").write_bytes(b"half a file")
        store = encode_shards(shards, vae, ALONE, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["latents-00000.safetensors"]
        assert store[shards.pairs[0].input].shape == (16, 2, 2)
