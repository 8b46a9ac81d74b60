"""The processes of one training run: one alone, or those that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from lavin_dit.errors import InputError

LONGEST_WAIT = timedelta(hours=4)
"""How long processes wait for each other outside of the steps, where one of them may write for all; within, the watchdog is stricter."""


@dataclass(frozen=True)
class Processes:
    """This process's place among all of them."""

    rank: int
    world_size: int
    device: torch.device
    per_node: int = 1
    """Processes of each node."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that logs and writes."""
        return self.rank == 0

    def share(self, batch_size: int) -> range:
        """This process's samples of a global batch; shares differ by one sample at most.

        Raises: InputError where a process would have none.
        """
        if batch_size < self.world_size:
            raise InputError(f"batch_size is {batch_size}: must be at least the number of processes ({self.world_size})")
        return range(self.rank * batch_size // self.world_size, (self.rank + 1) * batch_size // self.world_size)

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.world_size > 1:
            distributed.barrier()

    def total(self, values: Tensor) -> Tensor:
        """The sum of every process's values, on every process; in place."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values


@contextmanager
def join_processes() -> Iterator[Processes]:
    """The process group that torchrun's environment describes, gloo on CPUs and NCCL on GPUs; one process without it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = _pick_device()
    if world_size == 1:
        yield Processes(0, 1, device)
        return
    backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield Processes(distributed.get_rank(), world_size, device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        distributed.destroy_process_group()


def _pick_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
