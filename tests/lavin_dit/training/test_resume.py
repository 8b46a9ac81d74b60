"""Runs that are killed at any moment, in real processes: what they end with is what an uninterrupted run ends with."""

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lavin_dit.training.tiny_runs import (
    assert_equal_to_the_bit,
    children_of,
    command_of,
    compare,
    kill,
    run,
    send,
    start,
    steps_done,
    wait_until,
)

STEPS = 30
EVERY_STEP: dict[str, Any] = {"steps": STEPS, "checkpoints": {"every_steps": 1}}
FULL: dict[str, Any] = {"execution": {"sharding": "full"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(command_of(folder, EVERY_STEP))
    return folder


def kill_at_random(command: list[str], folder: Path, moments: np.random.Generator) -> None:
    """Kills a run, and all of its processes, at a random moment some steps from now."""
    goal = steps_done(folder) + int(moments.integers(2, 8))
    process = start(command)
    wait_until(lambda: steps_done(folder) >= goal or process.poll() is not None, f"step {goal}")
    time.sleep(moments.uniform(0.0, 0.02))
    kill(process)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_at_random_moments_with_a_save_always_under_way_ends_the_same(seed: int, whole: Path, tmp_path: Path) -> None:
    moments, folder = np.random.default_rng(seed), tmp_path / "run"
    command = command_of(folder, EVERY_STEP)
    for _ in range(3):
        kill_at_random(command, folder, moments)
    run(command)
    assert_equal_to_the_bit(folder, whole)


def test_a_sharded_run_killed_at_random_moments_ends_the_same(tmp_path: Path) -> None:
    moments, changed = np.random.default_rng(3), EVERY_STEP | FULL
    run(command_of(tmp_path / "whole", changed, processes=2))
    kill_at_random(command_of(tmp_path / "run", changed, processes=2), tmp_path / "run", moments)
    run(command_of(tmp_path / "run", changed, processes=2))
    assert_equal_to_the_bit(tmp_path / "run", tmp_path / "whole")


def test_a_run_goes_on_with_another_number_of_processes_and_another_layout(whole: Path, tmp_path: Path) -> None:
    moments, folder = np.random.default_rng(4), tmp_path / "run"
    kill_at_random(command_of(folder, EVERY_STEP | FULL, processes=2), folder, moments)
    kill_at_random(command_of(folder, EVERY_STEP), folder, moments)
    run(command_of(folder, EVERY_STEP | FULL, processes=4))
    compare(folder, whole, loss=1e-3, weights=1e-3)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_asked_to_stop_saves_the_step_that_it_has_come_to(processes: int, whole: Path, tmp_path: Path) -> None:
    folder, changed = tmp_path / "run", {"steps": STEPS, "checkpoints": {"every_steps": 1000}}
    process = start(command_of(folder, changed | {"step_s": 0.05}, processes))
    wait_until(lambda: steps_done(folder) >= 7, "step 7")
    # One of the processes alone: the others hear of it from this one.
    send(children_of(process.pid)[-1] if processes > 1 else process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    (kept,) = (folder / "checkpoints").glob("step-*")
    assert steps_done(folder) == int(kept.name.removeprefix("step-")) >= 7
    run(command_of(folder, changed, processes))
    compare(folder, whole, weights=None)
    if processes == 1:
        assert_equal_to_the_bit(folder, whole)
