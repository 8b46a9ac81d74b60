import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components.train_vae import run
from lavin_dit.config import load_config
from lavin_dit.data.shards.shard_set import write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.errors import InputError
from lavin_dit.training.history import read_history
from lavin_dit.training_config import TrainVaeConfig
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import load_vae, num_parameters
from tests.clip_shards import FULL_RECIPE, write_clip_shards

TINY = Path(__file__).parents[1] / "tiny.yaml"
LONG = ["train_vae.steps=50", "train_vae.checkpoints.every_steps=5"]
FULL = [*FULL_RECIPE, "train_vae.steps=24", "train_vae.checkpoints.every_steps=3"]
STATE_COPIES = 4
"""The weights, their average, and two moments."""


@pytest.fixture(scope="module")
def moving_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_shards(tmp_path_factory.mktemp("moving") / "shards")


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
        "metrics.jsonl",
        "model.json",
        "reconstructions",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]
    vae = load_vae(folder)
    assert (vae.resolution, vae.module.shape) == (16, config_of().shape)
    assert [row["step"] for row in read_history(folder / "history.csv")] == [1, 2, 3, 4]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() == {"psnr", "ssim", "loss", "latents"}
    assert metrics["latents"].keys() == {"mean", "std", "collapsed_share", "channel_std", "channel_kl"}
    assert len(metrics["latents"]["channel_kl"]) == 16
    assert json.loads((folder / "config.json").read_text()) == config_of().model_dump(mode="json")
    pictures = sorted((folder / "reconstructions").iterdir())
    assert len(pictures) == config_of().num_reconstructions
    with Image.open(pictures[0]) as picture:
        assert picture.size == (32, 16), "original and reconstruction side by side"


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tiny_shards: Path, tmp_path: Path, kill_during: Callable[..., None]) -> None:
    whole = train(tiny_shards, tmp_path / "whole" / "vae", *LONG)
    kill_during("train_vae", {"shards": tiny_shards}, tmp_path / "vae", LONG, before_step=30)
    assert not (tmp_path / "vae").exists()
    killed = train(tiny_shards, tmp_path / "vae", *LONG)
    for name in ("weights.safetensors", "history.csv", "metrics.json", "model.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_the_whole_recipe_killed_at_any_moment_ends_with_the_same_weights(
    moving_shards: Path, tmp_path: Path, kill_during: Callable[..., None]
) -> None:
    """The discriminator, its optimizer and the balance are part of the state as well."""
    whole = train(moving_shards, tmp_path / "whole" / "vae", *FULL)
    kill_during("train_vae", {"shards": moving_shards}, tmp_path / "vae", FULL, before_step=15)
    assert not (tmp_path / "vae").exists()
    killed = train(moving_shards, tmp_path / "vae", *FULL)
    for name in ("weights.safetensors", "history.csv", "metrics.json", "model.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_the_second_stage_leaves_measures_and_strips_of_clips(moving_shards: Path, tmp_path: Path) -> None:
    folder = train(moving_shards, tmp_path / "vae", *FULL_RECIPE)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["clips"].keys() == {"psnr", "ssim", "temporal_psnr"}
    strips = sorted((folder / "reconstructions").glob("clip-*.png"))
    assert len(strips) == 2
    with Image.open(strips[0]) as strip:
        assert strip.size == (5 * 16, 2 * 16), "five frames, the originals above"
        frames = np.asarray(strip)[:16].reshape(16, 5, 16, 3).swapaxes(0, 1)
    assert len({frame.tobytes() for frame in frames}) == 5
    losses = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["losses"]
    assert losses.keys() >= {"squared", "absolute", "kl", "perceptual", "adversarial", "discriminator"}


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_train_the_whole_recipe_like_one(
    sharding: str, moving_shards: Path, tmp_path: Path, command_of: Callable[..., list[str]]
) -> None:
    overrides = [*FULL_RECIPE, "train_vae.steps=6"]
    alone = train(moving_shards, tmp_path / "alone" / "vae", *overrides)
    layout = [*overrides, f"train_vae.execution.sharding={sharding}"]
    _, *arguments = command_of("train_vae", {"shards": moving_shards}, tmp_path / "vae", layout)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "UserWarning" not in done.stderr
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "vae", alone))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    rows = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["losses"] for folder in (tmp_path / "vae", alone)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-2)


def test_latents_that_collapse_are_told(tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    overrides = ("train_vae.kl_weight=1000.0", "train_vae.steps=40", "train_vae.optimizer.learning_rate=1.0e-2")
    with caplog.at_level(logging.WARNING, logger="components.train_vae"):
        folder = train(tiny_shards, tmp_path / "vae", *overrides)
    assert json.loads((folder / "metrics.json").read_text())["latents"]["collapsed_share"] > 0.5
    assert [record.getMessage() for record in caplog.records] == [
        "16 of 16 latent channels have collapsed onto the prior and say nothing: lower train_vae.kl_weight"
    ]


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
    room = int(1.6 * STATE_COPIES * 4 * num_parameters(STVae(config_of().shape)))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={room} tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "bash", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs in a namespace of one's own is not permitted here")
    command = command_of("train_vae", {"shards": tiny_shards}, disk / "vae", ["train_vae.checkpoints.every_steps=1"])
    script = (
        f'{mount}; "$@"; echo "exit code $?"; ls {disk}/.vae.partial/checkpoints; '
        f'mount -o remount,size=64m {disk}; "$@"; echo "exit code $?"; ls {disk}'
    )
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script, "bash", *command], capture_output=True, text=True, check=False, timeout=200
    )
    assert re.fullmatch(r"lavin: failed: disk full while writing \S+\.safetensors \(No space left on device\).*\n", done.stderr), (
        done.stderr
    )
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
    assert re.fullmatch(r"lavin: failed: disk full while writing \S+\.safetensors \(File too large\).*\n", done.stderr), done.stderr
    assert list((tmp_path / ".vae.partial" / "checkpoints").iterdir()) == []
    train(tiny_shards, tmp_path / "vae")


def test_shards_without_held_out_pictures_are_refused_before_training(tiny_shards: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    for split in ("train", "test"):
        with ShardWriter(shards, split, 1000):
            pass
    write_manifest(shards, resolution=16, clip_frames=1)
    with pytest.raises(InputError, match=r"shards: holds no held-out pairs; set prepare\.num_test_scenes"):
        train(shards, tmp_path / "vae")
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read"):
        train(tmp_path / "nowhere", tmp_path / "vae")
    assert not list(tmp_path.glob(".vae*"))


def test_shards_without_clips_are_refused_before_training(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"shards/test: holds no clips, which train_vae\.clips asks for; set prepare\.num_test_clips above 0$"
    ):
        train(tiny_shards, tmp_path / "vae", *FULL_RECIPE)
    assert not list(tmp_path.glob(".vae*"))
