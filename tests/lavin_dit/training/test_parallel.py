"""The same training in one process, in copies (DDP) and in shards (FSDP2): real processes, the same losses and weights."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lavin_dit.training.history import read_history
from tests.lavin_dit.training.tiny_runs import ENVIRONMENT, arguments, command_of, compare, free_port, run, torchrun, train

BEFORE_THE_FALL = 5
"""Steps. Then the loss falls by two thirds in three steps, and in float32 too moves by up to 6 % with the ninth bit of the weights."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("alone") / "run", 1)


def test_training_learns(alone: Path) -> None:
    losses = [row["loss"] for row in read_history(alone / "history.csv")]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("processes", "execution"),
    [
        (1, {"micro_batch": 1}),
        (1, {"micro_batch": 4}),
        (1, {"activation_checkpointing": "full"}),
        (1, {"activation_checkpointing": "selective"}),
        (2, {}),
        (2, {"micro_batch": 2}),
        (4, {"micro_batch": 1}),
        (2, {"sharding": "full"}),
        (2, {"sharding": "full", "micro_batch": 1, "activation_checkpointing": "full"}),
        (4, {"sharding": "full", "micro_batch": 1, "activation_checkpointing": "selective"}),
        (2, {"sharding": "full", "cpu_offload": True, "micro_batch": 2}),
    ],
    ids=lambda value: value if isinstance(value, int) else ",".join(f"{name}={setting}" for name, setting in value.items()) or "ddp",
)
def test_any_layout_trains_what_one_process_does(processes: int, execution: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    """Batches of 6: four processes have shares of 1 and 2 samples."""
    compare(train(tmp_path / "run", processes, execution=execution), alone)


def test_shards_within_nodes_and_copies_across_train_what_one_process_does(alone: Path, tmp_path: Path) -> None:
    node = torchrun(2, "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "hybrid")
    command = [*node, *arguments(tmp_path / "run", {"execution": {"sharding": "hybrid"}})]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
        run(command)
        assert other.wait(60) == 0
    compare(tmp_path / "run", alone)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_half_precision_stays_near(sharding: str, alone: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", 2, execution={"sharding": sharding, "precision": "bfloat16"})
    half, whole = ([row["loss"] for row in read_history(path / "history.csv")] for path in (folder, alone))
    assert half[:BEFORE_THE_FALL] == pytest.approx(whole[:BEFORE_THE_FALL], rel=0.01)
    assert half[-1] == pytest.approx(whole[-1], rel=0.05)
    assert all(weight.dtype == torch.float32 for weight in load_file(folder / "weights.safetensors").values())


@pytest.mark.parametrize(("processes", "execution"), [(1, {}), (2, {"sharding": "full", "activation_checkpointing": "selective"})])
def test_compiled_blocks_train_what_plain_ones_do(processes: int, execution: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    # Compiling takes its time, above all on a busy machine, and is no stall.
    compare(train(tmp_path / "run", processes, execution={"compile": True, **execution}, guard={"stall_timeout_s": 600.0}), alone)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("execution", [{}, {"compile": True, "precision": "bfloat16"}, {"activation_checkpointing": "selective"}])
def test_a_gpu_trains_what_it_says(execution: dict[str, Any], tmp_path: Path) -> None:
    losses = [row["loss"] for row in read_history(train(tmp_path / "run", 1, execution=execution) / "history.csv")]
    assert losses[-1] < 0.9 * losses[0]


def test_a_process_without_a_sample_is_refused(tmp_path: Path) -> None:
    command = command_of(tmp_path / "run", {"batch_size": 1}, 2)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250, env=ENVIRONMENT)
    assert done.returncode != 0
    assert "batch_size is 1: must be at least the number of processes (2)" in done.stderr
