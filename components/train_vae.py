"""Step: trains the ST-VAE on every distinct picture of the training shards, and in a second stage on clips too."""

import logging
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from components.folders import write_json
from components.shared_folder import identity_under_way, shared_folder
from lavin_dit.data.reading.remote_shards import open_shards
from lavin_dit.data.shards.distinct import unique_members
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.errors import InputError
from lavin_dit.evaluation.reconstruction import clip_metrics, psnr, ssim
from lavin_dit.inference import to_model, to_pixels
from lavin_dit.training.finetuning import begin
from lavin_dit.training.fit import Fitted, fit, forget
from lavin_dit.training.processes import join_processes
from lavin_dit.training.vae_objective import VaeObjective, check_clips
from lavin_dit.training_config import ClipsConfig, TrainVaeConfig
from lavin_dit.vae.st_vae import STVae
from lavin_dit.vae.statistics import LatentReport, describe_latents, measure_statistics
from lavin_dit.weights import TrainedVae, save_vae

logger = logging.getLogger(__name__)

INPUTS = ("shards",)
OUTPUTS = ("vae",)

MEASURED_PICTURES, MEASURED_CLIPS = 512, 64
PICTURES_AT_ONCE, CLIPS_AT_ONCE = 32, 4
LAST_ROWS = 10


def run(config: TrainVaeConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Trains, or continues a killed run; leaves the averaged weights, latent statistics and reconstructions.

    Raises: InputError where there are no held-out pictures, or clips, to measure it on.
    """
    _check_held_out(inputs["shards"], config)
    with (
        join_processes() as processes,
        shared_folder(outputs["vae"], config, inputs, processes) as folder,
        open_shards(inputs["shards"], "train", config.loading, setting="train_vae.loading") as opened,
    ):
        network = STVae(config.shape)
        network.initialise(torch.Generator().manual_seed(config.seed))
        begin(network, config, step="train_vae")
        with closing(VaeObjective(network, opened.shards, config, processes.device, cache=opened.cache)) as objective:
            fitted = fit("vae", objective, config, processes, folder, identity=identity_under_way(outputs["vae"]))
        if processes.is_first:
            trained = STVae(config.shape)
            trained.load_state_dict(fitted.weights, strict=True)
            _finish(trained.to(processes.device), fitted, config, inputs["shards"], folder)


def _check_held_out(shards: Path, config: TrainVaeConfig) -> None:
    held_out = ShardSet(shards, "test")
    if not held_out.pairs:
        raise InputError(f"{shards}: holds no held-out pairs; set prepare.num_test_scenes or prepare.test_fraction above 0")
    if config.clips:
        check_clips(held_out, config.clips)


def _finish(network: STVae, fitted: Fitted, config: TrainVaeConfig, source: Path, folder: Path) -> None:
    """Few pictures are measured, from all over the set: they are read in place, wherever the shards were trained on from."""
    network.eval().requires_grad_(False)
    shards, held_out = ShardSet(source, "train"), ShardSet(source, "test")
    statistics = measure_statistics(network, _pictures(shards, MEASURED_PICTURES))
    save_vae(folder, TrainedVae(network, statistics, shards.resolution))
    shown = folder / "reconstructions"
    shutil.rmtree(shown, ignore_errors=True)
    shown.mkdir()
    metrics = {"loss": fitted.history.mean_of_last("loss", LAST_ROWS), **_measure_pictures(network, held_out, config, shown)}
    if config.clips:
        metrics["clips"] = _measure_clips(network, held_out, config.clips, config.num_reconstructions, shown)
    write_json(folder / "metrics.json", metrics)
    forget(folder)


def _measure_pictures(network: STVae, held_out: ShardSet, config: TrainVaeConfig, shown: Path) -> dict[str, object]:
    pictures = _pictures(held_out, MEASURED_PICTURES)
    restored = reconstruct(network, pictures[:, :, None], at_once=PICTURES_AT_ONCE)[:, :, 0]
    for index in _spread(len(pictures), config.num_reconstructions):
        _save_picture(torch.cat([pictures[index], restored[index]], dim=2), shown / f"{index:05d}.png")
    latents = describe_latents(network, pictures)
    _warn_of_collapse(latents)
    return {"psnr": psnr(restored, pictures), "ssim": ssim(restored, pictures), "latents": latents.as_metrics()}


def _measure_clips(network: STVae, held_out: ShardSet, config: ClipsConfig, num_shown: int, shown: Path) -> dict[str, float]:
    """Of whole clips' beginnings; the pictures show the original's frames above those of the reconstruction."""
    clips = torch.stack(
        [
            torch.stack([to_model(held_out.image(member)) for member in clip.frames[: config.frames]], dim=1)
            for clip in held_out.clips[:MEASURED_CLIPS]
        ]
    )
    restored = reconstruct(network, clips, at_once=CLIPS_AT_ONCE)
    for index in _spread(len(clips), num_shown):
        strips = [rearrange(clip, "c t h w -> c h (t w)") for clip in (clips[index], restored[index])]
        _save_picture(torch.cat(strips, dim=1), shown / f"clip-{index:05d}.png")
    return clip_metrics(restored, clips)


def _warn_of_collapse(latents: LatentReport) -> None:
    if latents.collapsed_share > 0.5:
        logger.warning(
            "%d of %d latent channels have collapsed onto the prior and say nothing: lower train_vae.kl_weight",
            round(latents.collapsed_share * len(latents.channel_kl)),
            len(latents.channel_kl),
        )


def _pictures(shards: ShardSet, count: int) -> Tensor:
    """Up to `count` distinct pictures, spread over the set. Shapes: `(b, c, h, w)`."""
    members = unique_members(shards)
    return torch.stack([to_model(shards.image(member)) for member in members[:: max(1, len(members) // count)][:count]])


@torch.no_grad()
def reconstruct(network: STVae, clips: Tensor, *, at_once: int) -> Tensor:
    """Encodes and decodes, a few at a time. Shapes: `(b, c, t, h, w)` to the same, clamped to [-1, 1], on the CPU."""
    device = next(network.parameters()).device
    parts = clips.split(at_once)  # type: ignore[no-untyped-call]
    return torch.cat([network.decode(network.encode(part.to(device)).mean).clamp(-1.0, 1.0).cpu() for part in parts])


def _spread(length: int, count: int) -> list[int]:
    """Up to `count` positions, spread over a length."""
    return list(range(0, length, max(1, length // max(count, 1))))[:count]


def _save_picture(picture: Tensor, path: Path) -> None:
    Image.fromarray(to_pixels(picture)).save(path)
