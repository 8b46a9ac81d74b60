"""Latents of every picture and clip that a set's pairs are made of, encoded once and kept on disk.

A folder holds `latents-00000.safetensors` …, each with the mean and the log variance of the posteriors of some pictures, or some clips:
normalised, in half precision, `(n, z, f, y, x)`. `latents.json` has the statistics that they are normalised with, and what is left of mean
and deviation in each channel; `index.safetensors`, written last, has which content lies where.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lavin_dit.data.reading.shard_cache import ShardCache
from lavin_dit.data.shards.digests import DIGEST_BYTES
from lavin_dit.data.shards.distinct import KEY, DistinctFrames, Frames, content_key
from lavin_dit.data.shards.index import ShardIndex
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.data.task import Medium
from lavin_dit.errors import InputError
from lavin_dit.inference import to_model
from lavin_dit.progress import Progress
from lavin_dit.training.processes import Processes
from lavin_dit.vae.st_vae import Moments
from lavin_dit.weights import TrainedVae, save_tensors

BATCH_FRAMES = 64
"""Frames that are encoded at once: as many pictures, or fewer clips."""
BATCHES_OF_PART = 8
INDEX_FILE, STATISTICS_FILE = "index.safetensors", "latents.json"


@dataclass(frozen=True)
class Part:
    """One file of latents: some pictures, or clips, that follow each other in the order of the shards."""

    contents: DistinctFrames
    rows: range
    path: Path

    @property
    def batch_size(self) -> int:
        return _batch_size(self.contents)

    @property
    def shards(self) -> tuple[str, ...]:
        """Those that it is read from."""
        return tuple(dict.fromkeys(self.contents[row][0].shard for row in self.rows))


class LatentStore:
    """Normalised latents by the content of their picture or clip; they are mapped into memory, not read into it."""

    def __init__(self, folder: Path) -> None:
        """Opens what `encode_shards` has finished.

        Raises: InputError where it was made of shards of another format.
        """
        index = load_file(folder / INDEX_FILE)
        keys = index["keys"].numpy()
        if keys.shape[1:] != (DIGEST_BYTES,):
            raise InputError(f"{folder / INDEX_FILE}: names pictures as shards of another format do; delete {folder} and train again")
        self._keys = keys.view(KEY)[:, 0]
        self._places = index["places"].numpy()
        self._part = lru_cache(maxsize=None)(lambda number: load_file(_part_path(folder, number)))

    def __getitem__(self, frames: Frames) -> Tensor:
        """The mean. Shapes: `(z, f, y, x)` float32, f = 1 for a picture."""
        part, row = self._place(frames)
        return part["mean"][row].float()

    def moments(self, frames: Frames) -> Moments:
        """The posterior. Shapes: both `(z, f, y, x)` float32."""
        part, row = self._place(frames)
        return Moments(part["mean"][row].float(), part["logvar"][row].float())

    def _place(self, frames: Frames) -> tuple[Mapping[str, Tensor], int]:
        """The part that holds a picture or clip, and its row there."""
        key = np.array(content_key(frames), KEY)
        position = int(np.searchsorted(self._keys, key))
        if position == len(self._keys) or self._keys[position] != key:
            raise KeyError(content_key(frames).hex())
        number, row = self._places[position].tolist()
        return self._part(number), row


def encode_shards(
    shards: ShardSet,
    vae: TrainedVae,
    processes: Processes,
    folder: Path,
    *,
    media: Collection[Medium] = ("image", "clip"),
    cache: ShardCache | None = None,
    on_batch: Callable[[], None] | None = None,
) -> LatentStore:
    """Encodes each picture and clip once, in parts that the processes share out; parts that a killed run has finished are kept.

    Batches are always full, so that latents are the same to the bit for any number of processes, whatever else is in the set. `cache` is
    what the shards are read through where they are not local; `on_batch` hears of each batch that this process has encoded.
    """
    indices = [index for medium, index in shards.indices.items() if medium in media]
    parts = [] if (folder / INDEX_FILE).exists() else _cut_parts(indices, folder)
    own = [part for part in parts[processes.rank :: processes.world_size] if not part.path.exists()]
    vae.module.to(processes.device)
    with Progress("encode latents", sum(len(part.rows) for part in own), silent=not processes.is_first) as progress:

        def advance(count: int) -> None:
            progress.advance(count)
            if on_batch:
                on_batch()

        for part, following in zip_longest(own, own[1:]):
            shards.close()
            if cache:
                cache.hold(part.shards, following.shards if following else ())
            _encode_part(shards, vae, part, processes.device, advance)
    processes.wait()
    if processes.is_first and parts:
        _write_statistics(parts, vae, folder)
        _write_index(parts, folder)
    processes.wait()
    return LatentStore(folder)


def _cut_parts(indices: Iterable[ShardIndex], folder: Path) -> list[Part]:
    spans = [
        (contents, range(first, min(first + size, len(contents))))
        for contents in map(DistinctFrames, indices)
        for size in (BATCHES_OF_PART * _batch_size(contents),)
        for first in range(0, len(contents), size)
    ]
    return [Part(contents, rows, _part_path(folder, number)) for number, (contents, rows) in enumerate(spans)]


@torch.no_grad()
def _encode_part(shards: ShardSet, vae: TrainedVae, part: Part, device: torch.device, advance: Callable[[int], None]) -> None:
    done: list[Moments] = []
    for first in range(0, len(part.rows), part.batch_size):
        rows = part.rows[first : first + part.batch_size]
        clips = [to_model(shards.frames(part.contents[row])) for row in rows]
        done.append(_encode_batch(vae, torch.stack(clips).to(device), part.batch_size))
        advance(len(rows))
    mean, logvar = torch.cat([moments.mean for moments in done]), torch.cat([moments.logvar for moments in done])
    beside = part.path.with_suffix(".partial")
    save_tensors({"mean": mean, "logvar": logvar}, beside, metadata={"sums": json.dumps(_sums(mean))})
    beside.rename(part.path)


def _encode_batch(vae: TrainedVae, clips: Tensor, batch_size: int) -> Moments:
    """The normalised posterior, in half precision. Convolutions round otherwise in batches of another size: each is filled up."""
    filled = torch.cat([clips, clips[-1:].expand(batch_size - len(clips), *clips.shape[1:])])
    moments = vae.module.encode(filled)
    mean, logvar = vae.statistics.normalise(moments.mean), moments.logvar + 2 * math.log(vae.statistics.scale)
    return Moments(mean[: len(clips)].half().cpu(), logvar[: len(clips)].half().cpu())


def _sums(mean: Tensor) -> list[list[float]]:
    """Number, sum and sum of squares by channel."""
    values = mean.double().transpose(0, 1).flatten(1)
    count = torch.full((len(values),), values.shape[1], dtype=torch.float64)
    return torch.stack([count, values.sum(dim=1), values.square().sum(dim=1)]).tolist()


def _write_statistics(parts: list[Part], vae: TrainedVae, folder: Path) -> None:
    count, total, squares = np.sum([_read_sums(part.path) for part in parts], axis=0)
    mean = total / count
    statistics = {
        **asdict(vae.statistics),
        "channel_mean": mean.tolist(),
        "channel_deviation": np.sqrt(squares / count - mean**2).tolist(),
        "num_pictures": sum(len(part.rows) for part in parts if part.contents.num_frames == 1),
        "num_clips": sum(len(part.rows) for part in parts if part.contents.num_frames > 1),
    }
    (folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=1) + "\n", encoding="utf-8")


def _read_sums(path: Path) -> NDArray[np.float64]:
    with safe_open(path, "pt") as opened:
        return np.array(json.loads(opened.metadata()["sums"]))


def _write_index(parts: list[Part], folder: Path) -> None:
    keys = np.concatenate([part.contents.keys[part.rows.start : part.rows.stop] for part in parts])
    sizes = [len(part.rows) for part in parts]
    places = np.stack([np.repeat(np.arange(len(parts)), sizes), np.concatenate([np.arange(size) for size in sizes])], axis=1)
    order = np.argsort(keys)
    columns = {"keys": keys[order].view(np.uint8).reshape(len(keys), -1), "places": places[order].astype(np.int32)}
    beside = folder / f"{INDEX_FILE}.partial"
    save_tensors({name: torch.from_numpy(column) for name, column in columns.items()}, beside)
    beside.rename(folder / INDEX_FILE)


def _batch_size(contents: DistinctFrames) -> int:
    return max(1, BATCH_FRAMES // contents.num_frames)


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"latents-{number:05d}.safetensors"
