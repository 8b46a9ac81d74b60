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
PART_PICTURES = 512
"""Pictures of one file of latents; a multiple of the batch."""


def unique_members(shards: ShardSet) -> list[Member]:
    """Every distinct picture once, by content, in a fixed order: tasks share their scenes' pictures."""
    members = {member.sha256: member for pair in shards.pairs for member in pair.input + pair.target}
    return [members[digest] for digest in sorted(members)]


class LatentStore:
    """Normalised latents by the content hash of their picture. Shapes: each `(z, y, x)`."""

    def __init__(self, rows: dict[str, int], latents: Tensor) -> None:
        self._rows = rows
        self._latents = latents

    def __getitem__(self, frames: tuple[Member, ...]) -> Tensor:
        (member,) = frames
        return self._latents[self._rows[member.sha256]].float()


def encode_shards(shards: ShardSet, vae: TrainedVae, processes: Processes, folder: Path) -> LatentStore:
    """Encodes each picture once, in parts that the processes share out; parts that a killed run has finished are kept.

    The latents are normalised and stored in half precision. Parts and batches are the same for any number of processes, and so are the
    latents, to the bit.
    """
    members = unique_members(shards)
    parts = [members[first : first + PART_PICTURES] for first in range(0, len(members), PART_PICTURES)]
    paths = [folder / f"latents-{number:05d}.safetensors" for number in range(len(parts))]
    own = [number for number in range(processes.rank, len(parts), processes.world_size) if not paths[number].exists()]
    vae.module.to(processes.device)
    with Progress("encode latents", sum(len(parts[number]) for number in own), silent=not processes.is_first) as progress:
        for number in own:
            _encode_part(shards, vae, parts[number], paths[number], processes.device, progress)
    processes.wait()
    latents = torch.cat([load_file(path)["latents"] for path in paths])
    return LatentStore({member.sha256: row for row, member in enumerate(members)}, latents)


@torch.no_grad()
def _encode_part(
    shards: ShardSet, vae: TrainedVae, members: Sequence[Member], path: Path, device: torch.device, progress: Progress
) -> None:
    done: list[Tensor] = []
    for first in range(0, len(members), ENCODE_BATCH):
        batch = members[first : first + ENCODE_BATCH]
        images = torch.stack([to_model(shards.image(member)) for member in batch]).to(device)
        done.append(encode_images(vae, images).half().cpu())
        progress.advance(len(batch))
    partial = path.with_suffix(".partial")
    save_tensors({"latents": torch.cat(done)}, partial)
    partial.rename(path)
