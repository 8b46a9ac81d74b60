"""How fast a network's operations go: at a stated share of the peak, reckoned from what a GPU was seen to do, or timed on this machine.

Imports torch only to time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from lavin_dit.config import Config
from lavin_dit.planning.flops import dit_recomputed
from lavin_dit.planning.gpu_times import plain_passes_s
from lavin_dit.planning.layout import MicroBatches
from lavin_dit.planning.low_rank import updates_bytes
from lavin_dit.planning.step_time import DEFAULT_MFU, Fleet
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.workload import clip_share, episodes_flops, largest_episodes, vae_sample_flops

STATED, ASSUMED, RECKONED, TIMED = "stated", "assumed", "reckoned", "timed"
"""How a speed is known: as `--mfu`, as `DEFAULT_MFU`, of a GPU's plain blocks, of this machine's layers."""


@dataclass(frozen=True)
class Speed:
    """Operations a second of one GPU while it computes, and how they are known."""

    flops: float
    basis: str


def dit_speed(config: Config, fleet: Fleet, parts: MicroBatches, *, backward: float) -> Speed:
    """That of the J-DiT, on micro-batches that show the most pairs, over pictures and clips.

    Units: `backward` in forwards, with what activation checkpointing makes again.
    """
    section, resolution = config.train_dit, config.prepare.resolution
    basis = _basis(fleet, is_reckoned=not section.execution.compile)
    flops = seconds = 0.0
    for share, frames in _kinds(config):
        episodes = largest_episodes(section, samples=parts.samples, resolution=resolution, frames=frames)
        forward = episodes_flops(section, episodes)
        flops += share * (1 + backward) * forward
        if basis == TIMED:
            from lavin_dit.planning.dit_layer_times import dit_passes_s

            seconds += share * dit_passes_s(section, samples=parts.samples, resolution=resolution, frames=frames)
        elif basis == RECKONED:
            seconds += share * plain_passes_s(
                section, fleet.device, samples=parts.samples, resolution=resolution, frames=frames, count=parts.count
            )
        else:
            updates = updates_bytes(section, episodes, recomputed=dit_recomputed(section.execution.activation_checkpointing))
            seconds += share * (
                (1 + backward) * forward / _share_of_peak(fleet, section.execution.precision) + updates / fleet.device.memory_bandwidth
            )
    return Speed(flops / seconds, basis)


def vae_speed(config: Config, fleet: Fleet, parts: MicroBatches, *, backward: float) -> Speed:
    """The same of the ST-VAE, with the terms of its loss."""
    section, resolution = config.train_vae, config.prepare.resolution
    basis = _basis(fleet, is_reckoned=False)
    if basis != TIMED:
        return Speed(_share_of_peak(fleet, section.execution.precision), basis)
    from lavin_dit.planning.vae_layer_times import vae_passes_s

    kinds = [(1 - clip_share(section), 1), (clip_share(section), section.clips.frames if section.clips else 1)]
    flops = seconds = 0.0
    for share, frames in filter(itemgetter(0), kinds):
        forward = parts.samples * vae_sample_flops(section, Volume(frames, resolution, resolution))
        flops += share * (1 + backward) * forward
        seconds += share * vae_passes_s(section, samples=parts.samples, resolution=resolution, frames=frames)
    return Speed(flops / seconds, basis)


def encoding_speed(fleet: Fleet, vae: Speed) -> float:
    """Operations a second when pictures are encoded, in float32; where layers are timed, those of the ST-VAE's training."""
    return vae.flops if vae.basis == TIMED else _share_of_peak(fleet, "float32")


def _kinds(config: Config) -> Iterator[tuple[float, int]]:
    """Episodes of pictures, and of clips: their share of the steps, and frames."""
    section = config.train_dit
    share = section.clips.share if section.clips else 0.0
    if share < 1:
        yield 1 - share, 1
    if share > 0:
        yield share, config.prepare.clip_frames


def _basis(fleet: Fleet, *, is_reckoned: bool) -> str:
    """`is_reckoned`: whether a GPU's speed can be."""
    if fleet.mfu is not None:
        return STATED
    if not fleet.device.is_gpu:
        return TIMED
    return RECKONED if is_reckoned else ASSUMED


def _share_of_peak(fleet: Fleet, precision: str) -> float:
    return (DEFAULT_MFU if fleet.mfu is None else fleet.mfu) * fleet.device.peak_flops(precision)
