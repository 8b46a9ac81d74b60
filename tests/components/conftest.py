"""A real step in a process of its own, killed at a random moment of its training."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "tiny.yaml"
DEADLINE_S = 100.0

KillDuring = Callable[..., None]


def step_command(step: str, inputs: Mapping[str, Path], output: Path, overrides: list[str], *more: str) -> list[str]:
    command = [sys.executable, "-m", "components", step, "--params", str(TINY), "--output", f"{output.name}={output}", *more]
    command += [part for name, folder in inputs.items() for part in ("--input", f"{name}={folder}")]
    return command + [part for override in overrides for part in ("--set", override)]


def _kill_during(step: str, inputs: Mapping[str, Path], output: Path, overrides: list[str], *, before_step: int) -> None:
    """Kills the step without warning, at any moment between its first checkpoint and that of `before_step`."""
    process = subprocess.Popen(step_command(step, inputs, output, overrides), stdout=subprocess.DEVNULL, cwd=output.parent)
    checkpoints = output.parent / f".{output.name}.partial" / "checkpoints"
    deadline = time.monotonic() + DEADLINE_S
    chosen = f"step-{random.randrange(before_step):08d}"  # noqa: S311 - any moment must do
    while max((path.name for path in checkpoints.glob("step-*")), default="") < chosen and time.monotonic() < deadline:
        assert process.poll() is None, "the step ended before it could be killed"
        time.sleep(0.001)
    time.sleep(random.uniform(0.0, 0.05))  # noqa: S311
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="session")
def kill_during() -> KillDuring:
    return _kill_during


@pytest.fixture(scope="session")
def command_of() -> Callable[..., list[str]]:
    """The command that runs one step with the tests' params."""
    return step_command
