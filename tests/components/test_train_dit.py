import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components import train_vae
from components.entry import clear_errors
from components.train_dit import run
from lavin_dit.config import load_config
from lavin_dit.data.latents import LatentStore, encode_shards
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.training.exporter import PORT_VARIABLE
from lavin_dit.training.heartbeats import heartbeat_file
from lavin_dit.training.history import read_history
from lavin_dit.training_config import TrainDitConfig
from lavin_dit.weights import load_dit
from tests.lavin_dit.training.tiny_runs import wait_until

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
    assert not list(tmp_path.glob(".dit.partial/latents/*")), "nothing was encoded for a run that cannot be"


def test_training_that_diverges_is_one_line(inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["train_dit.optimizer.learning_rate=1.0e+30", "train_dit.optimizer.warmup_steps=0", "train_dit.optimizer.weight_decay=0.0"]
    with pytest.raises(SystemExit) as ended, clear_errors():
        train(inputs, tmp_path / "dit", *huge)
    assert ended.value.code == 1
    written = capsys.readouterr().err
    assert written.startswith("lavin: failed: 3 steps in a row up to step ")
    assert written.count("\n") == 1
    assert not (tmp_path / "dit").exists()


def test_what_the_first_of_two_processes_refuses_is_one_sentence(
    inputs: dict[str, Path], tmp_path: Path, command_of: Callable[..., list[str]]
) -> None:
    checkpoint = tmp_path / ".dit.partial" / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete.json").touch()
    (tmp_path / ".dit.partial.key").write_text("of an earlier version")
    command = command_of("train_dit", inputs, tmp_path / "dit", [], "--processes", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lavin: error: {tmp_path}/.dit.partial: holds checkpoints of another run ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout


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


def test_weights_that_do_not_fit_are_refused_before_latents_are_encoded(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train_dit\.frozen has nothing"):
        train(inputs, tmp_path / "dit", "train_dit.frozen=[nothing]")
    assert not (tmp_path / ".dit.partial" / "latents").exists()


def test_a_port_that_is_none_is_refused_before_latents_are_encoded(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PORT_VARIABLE, "metrics")
    with pytest.raises(InputError, match=r"^LAVIN_METRICS_PORT is metrics: must be a port"):
        train(inputs, tmp_path / "dit")
    assert not (tmp_path / ".dit.partial" / "latents").exists()


def test_a_location_that_is_none_is_refused_before_latents_are_encoded(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^checkpoints\.location is gs://bucket/runs: must be a folder, or s3://"):
        train(inputs, tmp_path / "dit", "train_dit.checkpoints.location=gs://bucket/runs")
    assert not list(tmp_path.glob(".dit.partial/latents/*"))


def test_the_watchdog_is_there_while_latents_are_encoded(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*arguments: Any, **settings: Any) -> LatentStore:
        settings["on_batch"]()
        heartbeat = heartbeat_file(tmp_path / ".dit.partial" / "heartbeats", 0)
        wait_until(lambda: heartbeat.exists() and '"encoding"' in heartbeat.read_text(), "it says where it is")
        return encode_shards(*arguments, **settings)

    monkeypatch.setattr("components.train_dit.encode_shards", encode)
    train(inputs, tmp_path / "dit", "train_dit.guard.stall_timeout_s=20")


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_adapt_what_one_does(
    sharding: str, inputs: dict[str, Path], given: Path, tmp_path: Path, command_of: Callable[..., list[str]]
) -> None:
    """Updates, their averages and what is frozen, merged from copies or shards."""
    pytest.importorskip("peft", reason="the extra lora is not installed")
    overrides = [from_weights(given), "train_dit.lora={rank: 2, alpha: 4.0}", "train_dit.frozen=[blocks.0]", "train_dit.steps=6"]
    alone = train(inputs, tmp_path / "alone" / "dit", *overrides)
    layout = [*overrides, f"train_dit.execution.sharding={sharding}", "train_dit.execution.micro_batch=1"]
    command = command_of("train_dit", inputs, tmp_path / "dit", layout, "--processes", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs, before = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "dit", alone, given))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    changed = {name for name, weight in before.items() if not torch.equal(weight, ours[name])}
    assert changed
    assert all(name.startswith("blocks.1.") for name in changed)
