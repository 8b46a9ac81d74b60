"""Latents of every image of a shard set, encoded once and kept on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lavin_dit.data.shards import Member, ShardSet
from lavin_dit.inference import encode_images, to_model
from lavin_dit.progress import Progress
from lavin_dit.training.processes import Processes
from lavin_dit.weights import TrainedVae, save_tensors

logger = logging.getLogger(__name__)

ENCODE_BATCH = 64


def unique_members(shards: ShardSet) -> list[Member]:
    """Every distinct picture once, by content, in a fixed order: tasks share their scenes' pictures."""
    members = {member.sha256: member for pair in shards.pairs for member in (pair.input, pair.target)}
    return [members[digest] for digest in sorted(members)]


class LatentStore:
    """Normalised latents by the content hash of their picture. Shapes: each `(z, y, x)`."""

    def __init__(self, rows: dict[str, int], latents: Tensor) -> None:
        self._rows = rows
        self._latents = latents

    def __getitem__(self, member: Member) -> Tensor:
        return self._latents[self._rows[member.sha256]].float()


def encode_shards(shards: ShardSet, vae: TrainedVae, processes: Processes, folder: Path) -> LatentStore:
    """Encodes each picture once, shared out over the processes; parts that a killed run has finished are kept.

    The latents are normalised and stored in half precision.
    """
    members = unique_members(shards)
    parts = [members[rank :: processes.world_size] for rank in range(processes.world_size)]
    paths = [folder / f"latents-{rank}-of-{processes.world_size}.safetensors" for rank in range(processes.world_size)]
    if not paths[processes.rank].exists():
        _encode_part(shards, vae, parts[processes.rank], paths[processes.rank], processes)
    processes.wait()
    latents = torch.cat([load_file(path)["latents"] for path in paths])
    order = [member.sha256 for part in parts for member in part]
    return LatentStore({digest: row for row, digest in enumerate(order)}, latents)


@torch.no_grad()
def _encode_part(shards: ShardSet, vae: TrainedVae, members: Sequence[Member], path: Path, processes: Processes) -> None:
    vae.module.to(processes.device)
    done: list[Tensor] = []
    with Progress("encode latents", len(members), silent=not processes.is_first) as progress:
        for first in range(0, len(members), ENCODE_BATCH):
            batch = members[first : first + ENCODE_BATCH]
            images = torch.stack([to_model(shards.image(member)) for member in batch]).to(processes.device)
            done.append(encode_images(vae, images).half().cpu())
            progress.advance(len(batch))
    partial = path.with_suffix(".partial")
    save_tensors({"latents": torch.cat(done)}, partial)
    partial.rename(path)
