"""How a run's processes, one a GPU, share its batch, its state and their links."""

from dataclasses import dataclass

from lavin_dit.errors import InputError
from lavin_dit.training_config import ExecutionConfig


@dataclass(frozen=True)
class Layout:
    """GPUs of a run, in nodes of equal size."""

    num_gpus: int
    gpus_per_node: int

    def __post_init__(self) -> None:
        if self.num_gpus > self.gpus_per_node and self.num_gpus % self.gpus_per_node:
            raise InputError(
                f"--gpus {self.num_gpus}: more than a node holds must be a multiple of what it holds (--gpus-per-node {self.gpus_per_node})"
            )

    @property
    def gpus_of_node(self) -> int:
        """Those of each node that take part."""
        return min(self.num_gpus, self.gpus_per_node)

    @property
    def num_nodes(self) -> int:
        return self.num_gpus // self.gpus_of_node

    def shards(self, execution: ExecutionConfig) -> int:
        """Among how many GPUs one copy of the state is split."""
        return {"none": 1, "full": self.num_gpus, "hybrid": self.gpus_of_node}[execution.sharding]

    def share(self, batch_size: int, setting: str = "batch_size") -> int:
        """The most samples of a global batch, that `setting` says, that one GPU gets.

        Raises: InputError where a GPU would get none.
        """
        if batch_size < self.num_gpus:
            raise InputError(f"{setting} is {batch_size}: must be at least the number of processes ({self.num_gpus})")
        return -(-batch_size // self.num_gpus)


@dataclass(frozen=True)
class MicroBatches:
    """How a GPU's share goes through the network: in `count` parts of at most `samples`."""

    count: int
    samples: int

    @classmethod
    def of_share(cls, share: int, micro_batch: int | None) -> "MicroBatches":
        """As training/feed.py divides it."""
        count = -(-share // (micro_batch or share))
        return cls(count, -(-share // count))
