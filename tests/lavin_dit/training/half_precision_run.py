"""One backward pass in bfloat16 of a J-DiT whose every weight counts, copied and split, to be started under torchrun: `... FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavin_dit.dit.j_dit import JDit
from lavin_dit.dit.rope import Rotation
from lavin_dit.presets import DitShape
from lavin_dit.training.objective import Objective
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training.sharding import LaidOut, trained_weights, whole
from lavin_dit.training_config import ExecutionConfig
from tests.lavin_dit.training.tiny_run import EXECUTION, Episode

SHAPE = DitShape(depth=8, dim=48, num_heads=4, kv_group=2)
LAYOUTS = {"float32": ("float32", "none"), "copied": ("bfloat16", "none"), "split": ("bfloat16", "full")}
SAMPLES_OF_EACH = 4


def episode() -> Episode:
    """Modulations and last layer are as far from zero as the other weights, so that all of them show in the loss."""
    objective = Episode()
    objective.network = JDit(SHAPE)
    random = torch.Generator().manual_seed(0)
    objective.network.initialise(random)
    with torch.no_grad():
        for weight in objective.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=random) / 10)
    return objective


def narrowed(objective: Objective[Any]) -> list[str]:
    """Takes down, as the network computes, what it and its blocks are given in less than float32; but for the tokens, which CPUs narrow."""
    network, found = objective.network, list[str]()
    assert isinstance(network, JDit)

    def look(module: nn.Module, given: tuple[object, ...]) -> None:
        rotations = [tensor for rotation in given if isinstance(rotation, Rotation) for tensor in (rotation.cos, rotation.sin)]
        inputs = [tensor for tensor in given if isinstance(tensor, Tensor)] if module is network else []
        found.extend(f"{type(module).__name__} {tensor.dtype}" for tensor in (*rotations, *inputs) if tensor.dtype != torch.float32)

    for module in (network, *network.blocks):
        module.register_forward_pre_hook(look)
    return found


def gradients(precision: str, sharding: str, processes: Processes) -> tuple[dict[str, Tensor], list[str]]:
    """The loss and every gradient, whole, and what was narrowed on the way."""
    objective: Objective[Any] = episode()
    execution = ExecutionConfig.model_validate(EXECUTION | {"precision": precision, "sharding": sharding})
    laid_out = LaidOut(objective, execution, processes)
    # After FSDP's own hooks, which narrow.
    found = narrowed(objective)
    first = SAMPLES_OF_EACH * processes.rank
    loss = laid_out.losses(objective.batch(0, range(first, first + SAMPLES_OF_EACH))).total
    loss.backward()  # type: ignore[no-untyped-call]
    laid_out.meet()
    every = {name: whole(weight.grad) for name, weight in trained_weights(objective.network).items() if weight.grad is not None}
    return {"loss": processes.total(loss.detach().clone()) / processes.world_size, **every}, found


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with join_processes() as processes:
        for name, (precision, sharding) in LAYOUTS.items():
            tensors, found = gradients(precision, sharding, processes)
            if processes.is_first:
                save_file(tensors, folder / f"{name}.safetensors")
                (folder / f"{name}.narrowed").write_text("\n".join(found))


if __name__ == "__main__":
    main()
