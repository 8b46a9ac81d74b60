"""How a network is laid out over processes and computed: precision, recomputation, compilation, copies (DDP) or shards (FSDP2)."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lavin_dit.dit.blocks import Block
from lavin_dit.errors import InputError
from lavin_dit.training.objective import Losses, Objective
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import ExecutionConfig
from lavin_dit.vae.blocks import ResidualBlock

logger = logging.getLogger(__name__)

KEPT_PRODUCTS = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
)
"""What selective checkpointing keeps: the operations that cost the most to repeat."""


class LaidOut:
    """An objective as its processes compute it: every process calls it on its own samples, and gradients meet in all of them."""

    def __init__(self, objective: Objective[object], execution: ExecutionConfig, processes: Processes) -> None:
        """Lays the objective's network out, in place.

        Raises: InputError where the processes cannot hold what was asked for.
        """
        self._execution, self._processes = execution, processes
        self.objective = objective.to(processes.device)
        self.is_sharded = execution.sharding != "none" and processes.world_size > 1
        if execution.cpu_offload and not self.is_sharded:
            logger.warning("execution.cpu_offload is true and has no effect: one process holds the whole state, and nothing is split")
        blocks = list(blocks_of(objective.network))
        for block in blocks:
            _recompute(block, execution)
        if execution.compile:
            for block in blocks:
                block.compile()
        self._call: nn.Module = objective
        if self.is_sharded:
            _shard(objective.network, execution, processes)
        elif processes.world_size > 1:
            self._call = DistributedDataParallel(objective, gradient_as_bucket_view=True)

    def losses(self, batch: object) -> Losses:
        """The objective's losses, in the precision asked for."""
        with self._precision():
            losses: Losses = self._call(batch)
        return losses

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around one micro-batch of a step: gradients travel between processes with the last one only."""
        if isinstance(self.objective.network, FSDPModule):
            self.objective.network.set_requires_gradient_sync(is_last)
        if isinstance(self._call, DistributedDataParallel) and not is_last:
            return self._call.no_sync()
        return nullcontext()

    def meet(self) -> None:
        """Averages the gradients of what is not sharded beside a sharded network."""
        if not self.is_sharded:
            return
        for parameter in self.objective.parameters():
            if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
                self._processes.total(parameter.grad).div_(self._processes.world_size)

    def _precision(self) -> AbstractContextManager[object]:
        if self._execution.precision == "float32":
            return nullcontext()
        return torch.autocast(self._processes.device.type, torch.bfloat16)


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that are recomputed, compiled and gathered one at a time."""
    return (module for module in network.modules() if isinstance(module, Block | ResidualBlock))


def trained_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that training moves, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every process; each of them has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _recompute(block: nn.Module, execution: ExecutionConfig) -> None:
    if execution.activation_checkpointing == "none":
        return
    again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    if execution.activation_checkpointing == "selective":
        again = partial(again, context_fn=partial(create_selective_checkpoint_contexts, _keep_products))
    block.forward = again


def _keep_products(_context: object, operation: object, *_args: object, **_kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT_PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


def _shard(network: nn.Module, execution: ExecutionConfig, processes: Processes) -> None:
    """Every block is gathered just before it computes; its modulations apart, since they are all asked for before the first block.

    Autocast narrows what a product takes, as it does for copies: narrow inputs of blocks would narrow times and the residual stream too.
    """
    split = partial(
        fully_shard,
        mesh=_mesh(execution, processes),
        mp_policy=MixedPrecisionPolicy(param_dtype=_half(execution), reduce_dtype=torch.float32, cast_forward_inputs=False),
        offload_policy=CPUOffloadPolicy(pin_memory=processes.device.type == "cuda") if execution.cpu_offload else OffloadPolicy(),
    )
    for block in blocks_of(network):
        if isinstance(block, Block):
            split([block.prompt_modulation, block.answer_modulation])
        split(block)
    split(network)


def _half(execution: ExecutionConfig) -> torch.dtype | None:
    return torch.bfloat16 if execution.precision == "bfloat16" else None


def _mesh(execution: ExecutionConfig, processes: Processes) -> DeviceMesh:
    kind, size = processes.device.type, processes.world_size
    if execution.sharding == "full":
        return init_device_mesh(kind, (size,), mesh_dim_names=("shard",))
    if size % processes.per_node:
        raise InputError(
            f"execution.sharding is hybrid: needs nodes of equal size, and {size} processes are not {processes.per_node} a node"
        )
    return init_device_mesh(kind, (size // processes.per_node, processes.per_node), mesh_dim_names=("replicate", "shard"))
