"""What the processes of a run send each other in a step, and how long the links take. Never imports torch."""

from dataclasses import dataclass

from lavin_dit.planning.devices import Device
from lavin_dit.planning.dit_activations import BFLOAT16, FLOAT32
from lavin_dit.planning.layout import Layout
from lavin_dit.training_config import ExecutionConfig

LINK_EFFICIENCY = 0.8
"""Share of a link's bandwidth that collectives of megabytes reach."""
HOP_S = 10e-6
"""How long a message takes to the next node, for every node of a ring."""


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind in a step, as one GPU sees them. Units: bytes that it sends over each link, hops one after the other."""

    node_bytes: float
    network_bytes: float
    hops: int

    def seconds(self, device: Device) -> float:
        """Within the node and between nodes at once, as rings that pass through both do; the slower link decides."""
        node_s = self.node_bytes / (LINK_EFFICIENCY * device.node_bandwidth)
        return max(node_s, self.network_bytes / (LINK_EFFICIENCY * device.network_bandwidth)) + HOP_S * self.hops


@dataclass(frozen=True)
class Traffic:
    """A step's collectives: weights that are gathered, through all of it, and gradients, as the last backward pass makes them."""

    gathers: Collective
    reductions: Collective

    @property
    def node_bytes(self) -> float:
        return self.gathers.node_bytes + self.reductions.node_bytes

    @property
    def network_bytes(self) -> float:
        return self.gathers.network_bytes + self.reductions.network_bytes


def traffic_of(execution: ExecutionConfig, layout: Layout, *, weights: int, trained: int, num_layers: int, count: int) -> Traffic:
    """The traffic of `count` micro-batches a step, of a network whose state is split layer by layer or copied (DDP)."""
    nodes, gpus = layout.num_nodes, layout.gpus_of_node
    gradients = FLOAT32 * trained
    shards = layout.shards(execution)
    if shards == 1:
        return Traffic(Collective(0.0, 0.0, 0), _all_reduce(gradients, gpus, nodes, num_layers))
    width = BFLOAT16 if execution.precision == "bfloat16" else FLOAT32
    # Every layer is gathered for the forward pass and again for the backward pass of each micro-batch.
    rounds = 2 * count
    across = 1 if execution.sharding == "hybrid" else nodes
    gathers = _one_way(rounds * width * weights, gpus, across, rounds * num_layers)
    reductions = _one_way(gradients, gpus, across, num_layers)
    if across == nodes:
        return Traffic(gathers, reductions)
    copies = _all_reduce(gradients // gpus, 1, nodes, num_layers)
    return Traffic(
        gathers, Collective(reductions.node_bytes, reductions.network_bytes + copies.network_bytes, reductions.hops + copies.hops)
    )


def _one_way(size: float, gpus: int, nodes: int, messages: int) -> Collective:
    """An all-gather or a reduce-scatter: all but a GPU's own part passes by it, and all but a node's own enters it, shared by its cards."""
    everyone = gpus * nodes
    return Collective(size * (everyone - 1) / everyone, size * (nodes - 1) / nodes / gpus, messages * (nodes - 1))


def _all_reduce(size: float, gpus: int, nodes: int, messages: int) -> Collective:
    there = _one_way(size, gpus, nodes, messages)
    return Collective(2 * there.node_bytes, 2 * there.network_bytes, 2 * there.hops)
