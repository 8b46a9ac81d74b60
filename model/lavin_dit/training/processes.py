"""The processes of one training run: one alone, or those that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from lavin_dit.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process's place among all of them."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that logs and writes."""
        return self.rank == 0

    def share(self, batch_size: int) -> range:
        """This process's samples of a global batch.

        Raises: InputError where the processes cannot share the batch evenly.
        """
        if batch_size % self.world_size:
            raise InputError(f"batch_size is {batch_size}: must be a multiple of the number of processes ({self.world_size})")
        size = batch_size // self.world_size
        return range(self.rank * size, (self.rank + 1) * size)

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def join_processes() -> Iterator[Processes]:
    """The process group that torchrun's environment describes, gloo on CPUs and NCCL on GPUs; one process without it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = _pick_device()
    if world_size == 1:
        yield Processes(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), world_size, device)
    finally:
        distributed.destroy_process_group()


def _pick_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
