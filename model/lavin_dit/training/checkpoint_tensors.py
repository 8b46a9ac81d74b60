"""A run's tensors to and from a checkpoint: torch.distributed.checkpoint over safetensors shards, each hashed by the process that wrote it.

The shards have the layout of torch's HuggingFaceStorageReader, which reads them: whole tensors, or pieces and their offsets.
"""

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from lavin_dit.errors import InputError
from lavin_dit.training.checkpoint_files import DamagedError, StoredFile, named_errors
from lavin_dit.weights import save_tensors

Publish = Callable[[list[StoredFile]], None]


class ShardWriter(StorageWriter):
    """Writes into a folder that is cleared first: one file a process, which the first process publishes together."""

    def __init__(self, folder: Path, publish: Publish, rank: int) -> None:
        self._folder, self._publish = folder, publish
        self.shard = folder / f"shard-{rank:05d}.safetensors"

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        assert checkpoint_id is None

    def set_up_storage_writer(self, is_coordinator: bool, *_args: Any, **_kwargs: Any) -> None:
        # The others write only once they have the plan, and that comes from here.
        if is_coordinator:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        written: Future[list[WriteResult]] = Future()
        written.set_result([])
        if plan.items:
            data = {item.index.fqn: planner.resolve_data(item) for item in plan.items}
            tensors = {name: tensor for name, tensor in data.items() if isinstance(tensor, Tensor)}
            assert len(tensors) == len(plan.items), "a process holds one piece of a tensor"
            offsets = {item.index.fqn: item.tensor_data.chunk.offsets for item in plan.items if item.tensor_data}
            _write_shard(self.shard, tensors, offsets)
            file = StoredFile.of(self.shard)
            written = Future()
            written.set_result([WriteResult(plan.items[0].index, file.num_bytes, file)])
        return written

    def finish(self, metadata: object, results: list[list[WriteResult]]) -> None:  # noqa: ARG002
        self._publish([result.storage_data for process in results for result in process])

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003
        return False


def _write_shard(path: Path, tensors: Mapping[str, Tensor], offsets: Mapping[str, torch.Size]) -> None:
    pieces = {name: {"saved_offsets": list(offset)} for name, offset in offsets.items()}
    layout = {"DCP_SHARDING_INFO": json.dumps(pieces), "DCP_VERSION": "1.0", "format": "pt"}
    # Lets other threads run meanwhile; torch's own writer of this format holds them up.
    save_tensors(_apart(tensors), path, metadata=layout)
    with path.open("rb") as file, named_errors(path):
        os.fsync(file.fileno())


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each with memory of its own, as the format asks."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        is_alone = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        apart[name] = tensor.contiguous() if is_alone else tensor.contiguous().clone()
    return apart


class Staging:
    """Copies in the host's memory, which training does not wait for to be written; their memory is used again."""

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._stager = DefaultStager(StagingOptions(on_gpu, False, False, on_gpu))

    def copy(self, tensors: Mapping[str, Tensor], *, rank: int, world_size: int) -> dict[str, Any]:
        """This process's copies: its part of every sharded tensor, and its share of those that every process has whole."""
        mine = _dealt_out(tensors, rank, world_size)
        copies: Any = self._stager.stage({name: tensor.detach() for name, tensor in mine.items()})
        return dict(copies)


def _dealt_out(tensors: Mapping[str, Tensor], rank: int, world_size: int) -> dict[str, Tensor]:
    """The largest first, each to the process that has the least."""
    mine: dict[str, Tensor] = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    loads = [0] * world_size
    for name in sorted(tensors.keys() - mine.keys(), key=lambda name: (-tensors[name].nbytes, name)):
        least = loads.index(min(loads))
        loads[least] += tensors[name].nbytes
        if least == rank:
            mine[name] = tensors[name]
    return mine


def write_tensors(copies: dict[str, Any], writer: ShardWriter, group: ProcessGroup | None) -> None:
    """Writes the tensors of all processes; every process calls it.

    Raises: OSError, in every process, where one of them could not write.
    """
    try:
        save(copies, storage_writer=writer, process_group=group, no_dist=group is None)
    except CheckpointException as failure:
        raise _first_cause(failure) from None


def check_tensors(folder: Path, tensors: Mapping[str, Tensor], source: str) -> None:
    """Checks that a checkpoint holds these tensors and no others.

    Raises: InputError naming the first that does not fit; DamagedError where the shards cannot be read or lack a piece.
    """
    stored = _read_layout(folder)
    for name in sorted(stored.keys() | tensors.keys()):
        if name not in stored:
            raise InputError(f"{source}: does not hold the tensor {name}; it was written by another version, remove it to begin anew")
        if name not in tensors:
            raise InputError(f"{source}: holds the tensor {name}, which this run does not have; remove it to begin anew")
        there, here = _kind(stored[name].size, stored[name].properties.dtype), _kind(tensors[name].shape, tensors[name].dtype)
        if sum(math.prod(piece.sizes) for piece in stored[name].chunks) != math.prod(stored[name].size):
            raise DamagedError(f"a piece of {name} is missing")
        if there != here:
            raise InputError(f"{source}: its tensor {name} is {there}, and this run's is {here}; remove it to begin anew")


def _read_layout(folder: Path) -> dict[str, TensorStorageMetadata]:
    try:
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its shards cannot be read ({' '.join(str(error).split())[:200]})") from error
    return {name: entry for name, entry in metadata.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)}


def _kind(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {'x'.join(str(side) for side in shape) or 'scalar'}"


def read_tensors(folder: Path, tensors: Mapping[str, Tensor], group: ProcessGroup | None) -> None:
    """Fills the tensors in place, each process its own part; every process calls it."""
    targets: dict[str, Any] = {name: tensor.detach() for name, tensor in tensors.items()}
    try:
        load(targets, storage_reader=HuggingFaceStorageReader(str(folder)), process_group=group, no_dist=group is None)
    except CheckpointException as failure:
        raise _first_cause(failure) from None


def _first_cause(failure: CheckpointException) -> BaseException:
    return failure.failures[min(failure.failures)][0]


def allow_single_process() -> None:
    """Silences torch's remark that a checkpoint of one process is one of one process."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized", category=UserWarning)
