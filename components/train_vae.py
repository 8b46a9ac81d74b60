"""Step: trains the ST-VAE on every distinct picture of the training shards."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from torch import Tensor

from components.folders import write_json
from components.shared_folder import shared_folder
from lavin_dit.config import TrainVaeConfig
from lavin_dit.data.latents import unique_members
from lavin_dit.data.shards import ShardSet
from lavin_dit.errors import InputError
from lavin_dit.evaluation.metrics import psnr_of
from lavin_dit.inference import decode_images, encode_images, to_model, to_pixels
from lavin_dit.training.fit import Fitted, fit
from lavin_dit.training.objectives import VaeObjective
from lavin_dit.training.processes import join_processes
from lavin_dit.vae.st_vae import STVae
from lavin_dit.vae.statistics import measure_statistics
from lavin_dit.weights import TrainedVae, save_vae

INPUTS = ("shards",)
OUTPUTS = ("vae",)

MEASURED_PICTURES = 512
LAST_ROWS = 10


def run(config: TrainVaeConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Trains, or continues a killed run; leaves the averaged weights, latent statistics and reconstructions.

    Raises: InputError where there are no held-out pictures to measure it on.
    """
    _check_held_out(inputs["shards"])
    with join_processes() as processes, shared_folder(outputs["vae"], config, inputs, processes) as folder:
        shards = ShardSet(inputs["shards"], "train")
        network = STVae(config.shape)
        network.initialise(torch.Generator().manual_seed(config.seed))
        fitted = fit("train ST-VAE", VaeObjective(network, shards, config, processes.device), config, processes, folder)
        if processes.is_first:
            network.load_state_dict(fitted.weights, strict=True)
            _finish(network, fitted, config, shards, inputs["shards"], folder)


def _check_held_out(shards: Path) -> None:
    if not ShardSet(shards, "test").pairs:
        raise InputError(f"{shards}: holds no held-out pairs; set prepare.num_test_scenes or prepare.test_fraction above 0")


def _finish(network: STVae, fitted: Fitted, config: TrainVaeConfig, shards: ShardSet, source: Path, folder: Path) -> None:
    network.cpu().eval().requires_grad_(False)
    statistics = measure_statistics(network, _pictures(shards, MEASURED_PICTURES))
    vae = TrainedVae(network, statistics, shards.resolution)
    save_vae(folder, vae)
    held_out = _pictures(ShardSet(source, "test"), MEASURED_PICTURES)
    restored = reconstruct(vae, held_out)
    write_json(folder / "metrics.json", {"psnr": psnr(restored, held_out), "loss": fitted.history.mean_of_last("loss", LAST_ROWS)})
    _write_reconstructions(folder / "reconstructions", held_out, restored, config.num_reconstructions)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _pictures(shards: ShardSet, count: int) -> Tensor:
    """Up to `count` distinct pictures, spread over the set. Shapes: `(b, c, h, w)`."""
    members = unique_members(shards)
    return torch.stack([to_model(shards.image(member)) for member in members[:: max(1, len(members) // count)][:count]])


@torch.no_grad()
def reconstruct(vae: TrainedVae, pictures: Tensor) -> Tensor:
    """Encodes and decodes, in small batches. Shapes: `(b, c, h, w)` to the same, clamped to [-1, 1]."""
    parts = pictures.split(32)  # type: ignore[no-untyped-call]
    return torch.cat([decode_images(vae, encode_images(vae, part)).clamp(-1.0, 1.0) for part in parts])


def psnr(restored: Tensor, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio over pictures in [-1, 1], in decibels, as the evaluation measures it."""
    squared = ((restored - pictures) / 2.0).square().flatten(1).mean(dim=1)
    return mean(psnr_of(error) for error in squared.tolist())


def _write_reconstructions(folder: Path, pictures: Tensor, restored: Tensor, count: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for index in range(0, len(pictures), max(1, len(pictures) // max(count, 1)))[:count]:
        side_by_side = torch.cat([pictures[index], restored[index]], dim=2)
        Image.fromarray(to_pixels(side_by_side)).save(folder / f"{index:05d}.png")
