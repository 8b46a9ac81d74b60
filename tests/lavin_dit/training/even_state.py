"""Checkpoints whose every tensor and fact hold one value, so that a mixture of two would show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavin_dit.training.checkpoints import Checkpoints, Saved
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import CheckpointConfig

ALONE = Processes(0, 1, torch.device("cpu"))
IDENTITY = {"seed": 0, "optimizer": {"learning_rate": 1e-4, "betas": (0.9, 0.95)}}
SHARD = "shard-00000.safetensors"


def rules(**changed: Any) -> CheckpointConfig:
    settings = {"every_steps": 1, "keep_last": 3, "keep_every_steps": None, "keep_best": False, "location": None}
    return CheckpointConfig.model_validate(settings | changed)


def checkpoints(
    folder: Path,
    *,
    identity: Any = None,
    processes: Processes = ALONE,
    on_saved: Callable[[Saved], None] | None = None,
    **changed: Any,
) -> Checkpoints:
    return Checkpoints(folder, rules(**changed), processes, identity=identity or IDENTITY, on_saved=on_saved)


def state(value: float) -> dict[str, Tensor]:
    return {"network.weight": torch.full((3, 4), float(value)), "optimizer.step": torch.tensor(float(value))}


def save(folder: Path, *steps: int, scores: dict[int, float] | None = None, **changed: Any) -> Checkpoints:
    run = checkpoints(folder, **changed)
    for step in steps:
        run.save(step, state(step), {"position": step}, score=(scores or {}).get(step, 1.0))
    run.wait()
    return run


def restored(folder: Path, **changed: Any) -> tuple[int, float] | None:
    """The step, and the one value that all tensors and facts must agree on."""
    tensors = state(-1.0)
    found = checkpoints(folder, **changed).restore(tensors)
    if found is None:
        assert all(torch.equal(tensor, other) for tensor, other in zip(tensors.values(), state(-1.0).values(), strict=True))
        return None
    value = float(tensors["optimizer.step"])
    assert torch.equal(tensors["network.weight"], torch.full((3, 4), float(value)))
    assert found[1] == {"position": value}
    return found[0], value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The project's own lines."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("lavin_dit")]


def flip(path: Path) -> None:
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
