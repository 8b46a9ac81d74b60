"""Starts tiny_run.py in real processes, looks at how far it has come, kills it, and compares what it leaves."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lavin_dit.training.history import read_history

SCRIPT = Path(__file__).with_name("tiny_run.py")
# A store that agents share leaves them waiting for each other when one joins later; the jobs of a cluster go without it too.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
PATIENCE_S = 90.0
LONGEST_RUN_S = 600.0
"""Compiling for the first time takes minutes on a busy machine."""
SAME_LOSS = 1e-5
SAME_WEIGHTS = 1e-4
"""Largest absolute difference, a hundredth of what a step of these runs may move a weight by; seen: 2.4e-5."""


def arguments(folder: Path, changed: dict[str, Any]) -> list[str]:
    return [str(SCRIPT), str(folder), json.dumps(changed)]


def torchrun(processes: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *(more or ("--standalone",))]


def command_of(folder: Path, changed: dict[str, Any], processes: int = 1) -> list[str]:
    return [*(torchrun(processes) if processes > 1 else [sys.executable]), *arguments(folder, changed)]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_RUN_S, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def train(folder: Path, processes: int, **changed: Any) -> Path:
    run(command_of(folder, changed, processes))
    return folder


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a signal reaches whom it is sent to."""
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and those that it started at once, as a node that is lost."""
    for pid in (*children_of(process.pid), process.pid):
        send(pid, signal.SIGKILL)
    process.wait()


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def steps_done(folder: Path) -> int:
    rows = read_history(folder / "history.csv")
    return int(rows[-1]["step"]) if rows else 0


def starts(folder: Path) -> list[str]:
    """How many processes a run had, each time that it started."""
    return (folder / "starts").read_text().split() if (folder / "starts").exists() else []


def compare(folder: Path, expected: Path, *, loss: float = SAME_LOSS, weights: float | None = SAME_WEIGHTS) -> None:
    """Asserts the same losses at the same steps, to a relative difference, and the same weights, to an absolute one."""
    rows, expected_rows = (read_history(path / "history.csv") for path in (folder, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert row["loss"] == pytest.approx(expected_row["loss"], rel=loss)
        assert row["half"] == pytest.approx(expected_row["half"], rel=loss)
    if weights is None:
        return
    found, wanted = (load_file(path / "weights.safetensors") for path in (folder, expected))
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=weights, msg=name)


def assert_equal_to_the_bit(folder: Path, expected: Path) -> None:
    assert (folder / "weights.safetensors").read_bytes() == (expected / "weights.safetensors").read_bytes()
    assert read_history(folder / "history.csv") == read_history(expected / "history.csv")
