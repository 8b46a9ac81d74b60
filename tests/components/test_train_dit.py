import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components import train_vae
from components.entry import clear_errors
from components.train_dit import run
from lavin_dit.config import load_config
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.training.history import read_history
from lavin_dit.training_config import TrainDitConfig
from lavin_dit.weights import load_dit

TINY = Path(__file__).parents[1] / "tiny.yaml"
LONG = ["train_dit.steps=200", "train_dit.checkpoints.every_steps=10"]


@pytest.fixture(scope="module")
def inputs(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    vae = tmp_path_factory.mktemp("trained") / "vae"
    train_vae.run(load_config(TINY).train_vae, {"shards": tiny_shards}, {"vae": vae})
    return {"shards": tiny_shards, "vae": vae}


def config_of(*overrides: str) -> TrainDitConfig:
    return load_config(TINY, overrides).train_dit


def train(inputs: dict[str, Path], target: Path, *overrides: str) -> Path:
    run(config_of(*overrides), inputs, {"dit": target})
    return target


def test_outputs_are_complete(inputs: dict[str, Path], tmp_path: Path) -> None:
    folder = train(inputs, tmp_path / "dit")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "history.csv",
        "metrics.json",
        "metrics.jsonl",
        "model.json",
        "weights.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["dit"]
    dit = load_dit(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["num_parameters"] == sum(parameter.numel() for parameter in dit.parameters())
    rows = read_history(folder / "history.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert metrics["loss"] == pytest.approx(sum(row["loss"] for row in rows) / 4)
    assert json.loads((folder / "config.json").read_text()) == config_of().model_dump(mode="json")


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(
    inputs: dict[str, Path], tmp_path: Path, kill_during: Callable[..., None]
) -> None:
    whole = train(inputs, tmp_path / "whole" / "dit", *LONG)
    kill_during("train_dit", inputs, tmp_path / "dit", LONG, before_step=100)
    assert not (tmp_path / "dit").exists()
    killed = train(inputs, tmp_path / "dit", *LONG)
    for name in ("weights.safetensors", "history.csv", "metrics.json", "model.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_two_processes_train_what_one_does(inputs: dict[str, Path], tmp_path: Path, command_of: Callable[..., list[str]]) -> None:
    overrides = ["train_dit.steps=8", "train_dit.checkpoints.every_steps=3"]
    one = train(inputs, tmp_path / "one" / "dit", *overrides)
    command = command_of("train_dit", inputs, tmp_path / "dit", overrides, "--processes", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    for row, expected in zip(*(read_history(folder / "history.csv") for folder in (tmp_path / "dit", one)), strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    both, alone = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "dit", one))
    for name, weight in alone.items():
        torch.testing.assert_close(both[name], weight, rtol=0, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "dit").iterdir()) == sorted(path.name for path in one.iterdir())


def test_a_process_without_a_sample_is_one_line(inputs: dict[str, Path], tmp_path: Path, command_of: Callable[..., list[str]]) -> None:
    command = command_of("train_dit", inputs, tmp_path / "dit", ["train_dit.batch_size=1"], "--processes", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 2
    assert done.stderr == "lavin: error: batch_size is 1: must be at least the number of processes (2)\n"
    assert not (tmp_path / "dit").exists()


def test_training_that_diverges_is_one_line(inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["train_dit.optimizer.learning_rate=1.0e+30", "train_dit.optimizer.warmup_steps=0", "train_dit.optimizer.weight_decay=0.0"]
    with pytest.raises(SystemExit) as ended, clear_errors():
        train(inputs, tmp_path / "dit", *huge)
    assert ended.value.code == 1
    written = capsys.readouterr().err
    assert written.startswith("lavin: failed: 3 steps in a row up to step ")
    assert written.count("\n") == 1
    assert not (tmp_path / "dit").exists()


def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vae/model\.json: cannot be read"):
        train({**inputs, "vae": tmp_path / "vae"}, tmp_path / "dit")
    with pytest.raises(InputError, match=r"task invert has 8 training pairs from scenes: .*train_dit\.max_pairs"):
        train(inputs, tmp_path / "dit", "train_dit.max_pairs=8")
    with pytest.raises(InputError, match=r"train_dit\.task_weights names sleep: the data has invert, mirror"):
        train(inputs, tmp_path / "dit", "train_dit.task_weights={sleep: 1.0}")
    assert not (tmp_path / "dit").exists()


@pytest.fixture(scope="module")
def given(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(inputs, tmp_path_factory.mktemp("given") / "dit")


def from_weights(folder: Path) -> str:
    return f"train_dit.initial_weights={{path: {folder}, sha256: {file_sha256(folder / 'weights.safetensors')}}}"


def test_training_starts_from_given_weights_and_leaves_frozen_ones_alone(inputs: dict[str, Path], given: Path, tmp_path: Path) -> None:
    tuned = train(inputs, tmp_path / "dit", from_weights(given), "train_dit.frozen=[blocks.0, prompt_embedder]")
    before, after = (load_file(folder / "weights.safetensors") for folder in (given, tuned))
    for name, weight in before.items():
        stays = name.startswith(("blocks.0.", "prompt_embedder."))
        assert torch.equal(after[name], weight) or not stays, name
    assert not torch.equal(after["final_layer.linear.weight"], before["final_layer.linear.weight"])
    assert (after["final_layer.linear.weight"] - before["final_layer.linear.weight"]).abs().max() < 5e-3, "and not from fresh ones"


def test_low_rank_updates_are_merged_into_a_plain_network(inputs: dict[str, Path], given: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    tuned = train(inputs, tmp_path / "dit", from_weights(given), "train_dit.lora={rank: 2, alpha: 4.0}", "train_dit.steps=8")
    before, after = load_file(given / "weights.safetensors"), load_dit(tuned).state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["final_layer.linear.weight"], before["final_layer.linear.weight"])
    change = after["blocks.0.attention.answer.value.weight"] - before["blocks.0.attention.answer.value.weight"]
    assert 0 < int(torch.linalg.matrix_rank(change)) <= 2


def test_other_weights_than_the_hash_says_are_refused(inputs: dict[str, Path], given: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train_dit\.initial_weights"):
        train(inputs, tmp_path / "dit", from_weights(given).replace("sha256: ", "sha256: 0")[:-2] + "}")
    assert not (tmp_path / "dit").exists()
