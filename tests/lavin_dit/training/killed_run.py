"""Runs that save without a pause, killed at random moments: each takes up what the one before left, and checks it.

`python killed_run.py FOLDER PROCESSES ROUNDS SEED`: every process is forked from this one, so that a round takes a moment. Exits with 1
where a round found less than was complete, or a mixture.
"""

import os
import random
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed

from lavin_dit.training.checkpoints import Checkpoints
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import CheckpointConfig

RULES = CheckpointConfig(every_steps=1, keep_last=1, keep_every_steps=None, keep_best=False, location=None)
LONGEST_S = 0.25
DEADLINE_S = 60.0


def state(step: float) -> dict[str, Tensor]:
    return {f"weight.{index}": torch.full((50_000,), step) for index in range(4)} | {"count": torch.tensor(step)}


def last_complete(folder: Path) -> int:
    acknowledged = folder / "acknowledged"
    return max((int(line) for line in acknowledged.read_text().split("\n")[:-1]), default=0) if acknowledged.exists() else 0


def save_until_killed(folder: Path, processes: Processes, meeting: Path) -> None:
    if processes.world_size > 1:
        timeout = timedelta(seconds=DEADLINE_S)
        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=processes.rank, world_size=processes.world_size, timeout=timeout
        )
    floor = last_complete(folder)

    def acknowledge(step: int) -> None:
        if processes.is_first:
            with (folder / "acknowledged").open("a") as file:
                file.write(f"{step}\n")

    checkpoints = Checkpoints(
        folder / "checkpoints", RULES, processes, identity={"run": "killed"}, on_saved=lambda saved: acknowledge(saved.step)
    )
    tensors = state(0.0)
    found = checkpoints.restore(tensors)
    step = found[0] if found else 0
    mixed = [name for name, tensor in tensors.items() if not tensor.eq(step).all()]
    if step < floor or mixed or (found and found[1] != {"step": step}):
        sys.stderr.write(f"found step {step} where {floor} was complete, facts {found}, mixed up: {mixed}\n")
        os._exit(1)
    (folder / f"began.{processes.rank}").touch()
    while True:
        step += 1
        for tensor in tensors.values():
            tensor.fill_(step)
        checkpoints.save(step, tensors, {"step": step}, score=1.0)


def fork(folder: Path, rank: int, world_size: int, meeting: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        save_until_killed(folder, Processes(rank, world_size, torch.device("cpu")), meeting)
    finally:
        os._exit(1)


def play(folder: Path, world_size: int, number: int, dice: random.Random) -> bool:
    """One round; whether every process was well when it was killed."""
    began = [folder / f"began.{rank}" for rank in range(world_size)]
    for file in began:
        file.unlink(missing_ok=True)
    floor = last_complete(folder)
    children = [fork(folder, rank, world_size, folder / f"meeting.{number}") for rank in range(world_size)]
    deadline = time.monotonic() + DEADLINE_S

    def has_come_far() -> bool:
        # Every other round until it has saved something, however slow the machine is.
        return all(file.exists() for file in began) and (number % 2 == 0 or last_complete(folder) > floor)

    while not has_come_far() and time.monotonic() < deadline:
        if any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) for child in children):
            break
        time.sleep(0.001)
    is_well = has_come_far()
    time.sleep(dice.uniform(0.0, LONGEST_S))
    dice.shuffle(children)
    for child in children:
        os.kill(child, signal.SIGKILL)
        time.sleep(dice.choice((0.0, 0.02)))
    for child in children:
        os.waitpid(child, 0)
    return is_well


if __name__ == "__main__":
    place, count, rounds, seed = Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5])
    chance = random.Random(seed)  # noqa: S311 - any moment must do
    well = [play(place, count, number, chance) for number in range(rounds)]
    sys.stdout.write(f"{last_complete(place)} steps complete\n")
    sys.exit(0 if all(well) else 1)
