import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.train_vae import psnr, run
from lavin_dit.config import TrainVaeConfig, load_config
from lavin_dit.data.shards import ShardWriter, write_manifest
from lavin_dit.errors import InputError
from lavin_dit.evaluation.metrics import PSNR_CAP_DB
from lavin_dit.training.checkpoints import Checkpoints
from lavin_dit.training.history import read_history
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import load_vae

TINY = Path(__file__).parents[1] / "tiny.yaml"
LONG = ["train_vae.steps=150", "train_vae.checkpoint_every_steps=10"]


def config_of(*overrides: str) -> TrainVaeConfig:
    return load_config(TINY, overrides).train_vae


def train(shards: Path, target: Path, *overrides: str) -> Path:
    run(config_of(*overrides), {"shards": shards}, {"vae": target})
    return target


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def test_outputs_are_complete(tiny_shards: Path, tmp_path: Path) -> None:
    folder = train(tiny_shards, tmp_path / "vae")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "history.csv",
        "metrics.json",
        "model.json",
        "reconstructions",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]
    vae = load_vae(folder)
    assert (vae.resolution, vae.module.shape) == (16, config_of().shape)
    assert [row["step"] for row in read_history(folder / "history.csv")] == [1, 2, 3, 4]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() == {"psnr", "loss"}
    assert all(isinstance(value, float) for value in metrics.values())
    assert json.loads((folder / "config.json").read_text()) == config_of().model_dump(mode="json")
    pictures = sorted((folder / "reconstructions").iterdir())
    assert len(pictures) == config_of().num_reconstructions
    with Image.open(pictures[0]) as picture:
        assert picture.size == (32, 16), "original and reconstruction side by side"


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tiny_shards: Path, tmp_path: Path, kill_during: Callable[..., None]) -> None:
    whole = train(tiny_shards, tmp_path / "whole" / "vae", *LONG)
    kill_during("train_vae", {"shards": tiny_shards}, tmp_path / "vae", LONG, before_step=80)
    assert not (tmp_path / "vae").exists()
    killed = train(tiny_shards, tmp_path / "vae", *LONG)
    for name in ("weights.safetensors", "history.csv", "metrics.json", "model.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_what_was_left_by_a_run_with_other_parameters_is_not_mixed_in(tiny_shards: Path, tmp_path: Path) -> None:
    left = tmp_path / ".vae.partial" / "checkpoints" / "step-00000002"
    left.mkdir(parents=True)
    (tmp_path / ".vae.partial.key").write_text("another run")
    assert weights(train(tiny_shards, tmp_path / "vae")) == weights(train(tiny_shards, tmp_path / "again" / "vae"))


def test_another_seed_gives_other_weights(tiny_shards: Path, tmp_path: Path) -> None:
    first, second = (train(tiny_shards, tmp_path / str(seed), f"train_vae.seed={seed}") for seed in (0, 1))
    assert weights(first) != weights(second)


def test_a_disk_that_fills_during_a_checkpoint_is_one_line_and_a_second_run_ends_right(
    tiny_shards: Path, tmp_path: Path, command_of: Callable[..., list[str]]
) -> None:
    parts = ("network", "average", "mean of gradients", "mean of squares")
    Checkpoints(tmp_path).save(0, {part: STVae(config_of().shape).state_dict() for part in parts})
    room = int(1.6 * (tmp_path / "step-00000000" / "state.pt").stat().st_size)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={room} tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "bash", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs in a namespace of one's own is not permitted here")
    command = command_of("train_vae", {"shards": tiny_shards}, disk / "vae", ["train_vae.checkpoint_every_steps=1"])
    script = (
        f'{mount}; "$@"; echo "exit code $?"; ls {disk}/.vae.partial/checkpoints; '
        f'mount -o remount,size=64m {disk}; "$@"; echo "exit code $?"; ls {disk}'
    )
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script, "bash", *command], capture_output=True, text=True, check=False, timeout=200
    )
    assert re.fullmatch(r"lavin: failed: disk full while writing \S+state\.pt \(No space left on device\).*\n", done.stderr), done.stderr
    assert re.search(r"exit code 1\nstep-00000001\n", done.stdout), done.stdout
    assert "continuing from step 1\n" in done.stdout
    assert done.stdout.endswith("exit code 0\nvae\n"), done.stdout


def test_a_file_size_limit_during_a_checkpoint_is_one_line_too(
    tiny_shards: Path, tmp_path: Path, command_of: Callable[..., list[str]]
) -> None:
    command = command_of("train_vae", {"shards": tiny_shards}, tmp_path / "vae", [])
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"lavin: failed: disk full while writing \S+state\.pt \(File too large\).*\n", done.stderr), done.stderr
    assert list((tmp_path / ".vae.partial" / "checkpoints").iterdir()) == []
    train(tiny_shards, tmp_path / "vae")


def test_shards_without_held_out_pictures_are_refused_before_training(tiny_shards: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    for split in ("train", "test"):
        with ShardWriter(shards, split, 1000):
            pass
    write_manifest(shards, resolution=16, clip_frames=1, counts={})
    with pytest.raises(InputError, match=r"shards: holds no held-out pairs; set prepare\.num_test_scenes"):
        train(shards, tmp_path / "vae")
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read"):
        train(tmp_path / "nowhere", tmp_path / "vae")
    assert not list(tmp_path.glob(".vae*"))


def test_psnr_is_ten_decibels_for_a_tenth_of_the_squared_range() -> None:
    pictures = torch.zeros(2, 3, 4, 4)
    assert psnr(pictures + 0.4**0.5, pictures) == pytest.approx(10.0, abs=1e-4)
    assert psnr(pictures, pictures) == PSNR_CAP_DB
