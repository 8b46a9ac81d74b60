"""A run whose nodes come and go: real torchrun agents of one machine, killed and started again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lavin_dit.training.history import read_history
from tests.lavin_dit.training.tiny_runs import (
    PATIENCE_S,
    SAME_LOSS,
    arguments,
    command_of,
    free_port,
    kill,
    listens,
    run,
    start,
    starts,
    steps_done,
    torchrun,
    wait_until,
)

QUICK_RENDEZVOUS = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=6,join_timeout=60"
STEPS = 100


@contextmanager
def agent(port: int, folder: Path, changed: dict[str, Any]) -> Iterator[Popen[bytes]]:
    """One node of a run that goes on with one node and grows to two; it is killed at the end if it is still there."""
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "elastic", "--rdzv-conf", QUICK_RENDEZVOUS]
    process = start([*torchrun(1, "--nnodes", "1:2", "--max-restarts", "10", *rendezvous), *arguments(folder, changed)])
    try:
        yield process
    finally:
        kill(process)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_run_goes_on_with_fewer_nodes_and_grows_back(sharding: str, tmp_path: Path) -> None:
    changed: dict[str, Any] = {"steps": STEPS, "execution": {"sharding": sharding}}
    folder, port = tmp_path / "run", free_port()
    slow = changed | {"step_s": 0.1}
    with agent(port, folder, slow) as first:
        wait_until(lambda: listens(port), "the first node holds the rendezvous")
        with agent(port, folder, slow) as second:
            wait_until(lambda: starts(folder)[-1:] == ["2"] and steps_done(folder) >= 10, "two nodes train")
            kill(second)
        lost_at = steps_done(folder)
        wait_until(lambda: starts(folder)[-1:] == ["1"] and steps_done(folder) >= lost_at + 5, "one node goes on alone")
        with agent(port, folder, slow) as third:
            wait_until(lambda: starts(folder)[-1:] == ["2"], "the second node is back")
            assert steps_done(folder) < STEPS
            assert first.wait(PATIENCE_S) == 0
            assert third.wait(PATIENCE_S) == 0
    run(command_of(tmp_path / "alone", changed))
    compare_rows(folder, tmp_path / "alone")
    found, wanted = (load_file(path / "weights.safetensors") for path in (folder, tmp_path / "alone"))
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-3, msg=name)


def compare_rows(folder: Path, expected: Path) -> None:
    rows, expected_rows = (read_history(path / "history.csv") for path in (folder, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows] == list(range(1, STEPS + 1))
    # Rounding grows along a trajectory: the first steps agree to rounding, the last ones to what it has become.
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert row["loss"] == pytest.approx(expected_row["loss"], rel=SAME_LOSS if row["step"] <= 12 else 1e-2)
