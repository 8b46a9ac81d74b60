"""One process of a run over any number of them, for torchrun: takes up a checkpoint where there is one, learns, saves; prints digests.

`python resharded_run.py FOLDER STEPS [LOCATION]`: the state is a J-DiT, its average and AdamW's moments, sharded with FSDP2 where there
are several processes.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DIT_PRESETS
from lavin_dit.training.checkpoints import Checkpoints
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training_config import CheckpointConfig

RULES = CheckpointConfig(every_steps=1, keep_last=9, keep_every_steps=None, keep_best=False, location=None)


class Run:
    """A network and all that is kept of its training."""

    def __init__(self, processes: Processes) -> None:
        self.network = JDit(DIT_PRESETS["tiny"])
        self.network.initialise(torch.Generator().manual_seed(processes.world_size))
        # Fewer rows than processes: somebody holds nothing of it.
        self.network.register_parameter("narrow", nn.Parameter(torch.randn(1, 5)))
        if processes.world_size > 1:
            mesh = init_device_mesh("cpu", (processes.world_size,))
            for block in self.network.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(self.network, mesh=mesh)
        self.parameters = {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1e-2)
        for weight in self.parameters.values():
            moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[weight] = {"step": torch.tensor(0.0), **moments}
        self.average = {name: weight.detach().clone() for name, weight in self.parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        moments = {name: self.optimizer.state[weight] for name, weight in self.parameters.items()}
        kept = {f"optimizer.{name}.{key}": value for name, state in moments.items() for key, value in state.items()}
        average = {f"average.{name}": value for name, value in self.average.items()}
        return {f"network.{name}": value for name, value in self.network.state_dict().items()} | average | kept

    def learn(self, step: int) -> None:
        for index, weight in enumerate(self.parameters.values()):
            weight.grad = torch.full_like(weight, 0.1 * step + index)
        self.optimizer.step()
        for name, weight in self.parameters.items():
            self.average[name].lerp_(weight.detach(), 0.1)


def digest(tensors: dict[str, Tensor]) -> str:
    """Names every bit of the state, as it is when it is put together."""
    named = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        named.update(f"{name} {tuple(whole.shape)} {whole.dtype}".encode() + whole.detach().numpy().tobytes())
    return named.hexdigest()


def advance(folder: Path, steps: int, processes: Processes, location: str | None = None) -> dict[str, object]:
    run = Run(processes)
    rules = RULES.model_copy(update={"location": location})
    checkpoints = Checkpoints(folder, rules, processes, identity={"run": "resharded"})
    fresh = digest(run.tensors())
    found = checkpoints.restore(run.tensors())
    told: dict[str, object] = {"found": found and found[0], "fresh": fresh, "restored": digest(run.tensors())}
    begun = found[0] if found else 0
    for step in range(begun + 1, begun + 1 + steps):
        run.learn(step)
        checkpoints.save(step, run.tensors(), {"processes": processes.world_size}, score=1.0)
    checkpoints.wait()
    empty = sum(isinstance(tensor, DTensor) and tensor.to_local().numel() == 0 for tensor in run.tensors().values())
    counts = [empty]
    if processes.world_size > 1:
        counts *= processes.world_size
        distributed.all_gather_object(counts, empty)
    return told | {"saved": digest(run.tensors()), "empty_shards": sum(counts)}


if __name__ == "__main__":
    with join_processes() as joined:
        outcome = advance(Path(sys.argv[1]), int(sys.argv[2]), joined, *sys.argv[3:])
        if joined.is_first:
            sys.stdout.write(f"{json.dumps(outcome)}\n")
