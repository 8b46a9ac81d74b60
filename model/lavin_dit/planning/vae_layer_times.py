"""How long the ST-VAE's layers, and the terms that judge what it gives, take on this machine, each distinct one timed alone."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavin_dit.planning.flops import vae_flops
from lavin_dit.planning.layer_times import Portion, Stopwatch, materialise, noise, passes_s
from lavin_dit.planning.rehearsal import one_picture
from lavin_dit.planning.vae_layers import Head, Layer, Resampling, Residual, Stem, Volume, latent_volume, layer_flops, vae_layers
from lavin_dit.presets import LATENT_CHANNELS, PIXEL_CHANNELS
from lavin_dit.training.finetuning import freeze
from lavin_dit.training.vae_objective import Pictures, VaeObjective
from lavin_dit.training_config import TrainVaeConfig
from lavin_dit.vae.st_vae import STVae

STOPWATCH = Stopwatch()
SMALLEST = 32
"""Pixels of a side that all judges can do with."""


@dataclass(frozen=True)
class Traits:
    """What layers that take the same time have in common."""

    layer: Layer
    """Without its name."""
    learns: tuple[bool, ...]
    """Of each of its weights."""
    is_passed: bool
    """Whether the backward pass goes on to what comes before it."""
    is_latent_passed: bool
    """Whether it does so to the latent that the decoder's norms see."""


def vae_passes_s(config: TrainVaeConfig, *, samples: int, resolution: int, frames: int = 1, stopwatch: Stopwatch = STOPWATCH) -> float:
    """A micro-batch's forward and backward passes, its judges' included, with what the stopwatch's processes send."""
    each = vae_layers(config.shape, Volume(frames, resolution, resolution))
    largest = max(map(layer_flops, each)) / sum(map(layer_flops, each))

    def flops(part: Portion) -> float:
        return sum(vae_flops(config.shape, samples=part.samples, frames=frames, height=part.resolution, width=part.resolution))

    def timed_s(part: Portion) -> float:
        return _Timing(config, part.samples, Volume(frames, part.resolution, part.resolution), stopwatch).all_s()

    return passes_s(Portion(samples, resolution), timed_s, flops, largest=largest, step=SMALLEST)


@dataclass(frozen=True)
class _Timing:
    config: TrainVaeConfig
    samples: int
    pixels: Volume
    stopwatch: Stopwatch

    def all_s(self) -> float:
        with torch.device("meta"):
            network = STVae(self.config.shape)
        freeze(network, self.config.frozen, key="train_vae.frozen")
        firsts, counts = self._distinct(network)
        return self._losses_s() + sum(counts[traits] * self._layer_s(network, firsts[traits], traits) for traits in firsts)

    def _distinct(self, network: STVae) -> tuple[dict[Traits, Layer], Counter[Traits]]:
        """The first layer of each kind, and how many there are."""
        firsts: dict[Traits, Layer] = {}
        counts: Counter[Traits] = Counter()
        is_passed = is_latent_passed = False
        for layer in vae_layers(self.config.shape, self.pixels):
            if layer.name == "decoder" and isinstance(layer, Stem):
                is_latent_passed = is_passed
            learns = tuple(weight.requires_grad for part in _parts(network, layer) for weight in part.parameters())
            traits = Traits(dataclasses.replace(layer, name=""), learns, is_passed, is_latent_passed)
            firsts.setdefault(traits, layer)
            counts[traits] += 1
            is_passed = is_passed or any(learns)
        return firsts, counts

    def _layer_s(self, network: STVae, layer: Layer, traits: Traits) -> float:
        parts = copy.deepcopy(_parts(network, layer))
        materialise(parts, torch.Generator().manual_seed(self.config.seed))
        before, channels = (layer.before, layer.channels) if isinstance(layer, Resampling) else (layer.volume, layer.in_channels)
        # Autocast narrows what convolutions give, and no pixels or latents.
        is_narrow = self.config.execution.precision == "bfloat16" and not isinstance(layer, Stem)
        x = self._leaf(channels, before, torch.bfloat16 if is_narrow else torch.float32, is_passed=traits.is_passed)
        latent = self._leaf(LATENT_CHANNELS, latent_volume(self.pixels), torch.float32, is_passed=traits.is_latent_passed)

        def call(x: Tensor, latent: Tensor) -> tuple[Tensor, ...]:
            if isinstance(layer, Residual):
                return (parts[0](x, latent),)
            if isinstance(layer, Head):
                norm, convolution = parts
                return (convolution(F.silu(norm(x, latent))),)
            return (parts[0](x),)

        return self.stopwatch.layer_s(parts, call, (x, latent), self.config.execution)

    def _leaf(self, channels: int, volume: Volume, dtype: torch.dtype, *, is_passed: bool) -> Tensor:
        values = noise(self.samples, channels, volume.frames, volume.height, volume.width, dtype=dtype)
        # In this layout pictures go through the whole network, and clips to its first convolutions.
        if volume.frames == 1:
            values = values.contiguous(memory_format=torch.channels_last_3d)
        return values.requires_grad_(is_passed)

    def _losses_s(self) -> float:
        """Of every term, from the reconstruction back to its gradient, and of the discriminator's own learning."""
        moments = [self._leaf(LATENT_CHANNELS, latent_volume(self.pixels), torch.float32, is_passed=False) for _ in range(2)]
        given = _Given(self._leaf(PIXEL_CHANNELS, self.pixels, torch.float32, is_passed=True), *moments)
        pixels = self._leaf(PIXEL_CHANNELS, self.pixels, torch.float32, is_passed=False)
        with one_picture(self.pixels.height) as shards:
            section = self.config.model_copy(update={"clips": None})
            with closing(VaeObjective(cast(STVae, given), shards, section, torch.device("cpu"))) as objective:
                return self.stopwatch.objective_s(objective, Pictures(pixels, moments[0], step=0), self.config.execution)


class _Given(nn.Module):
    """In the ST-VAE's place: a reconstruction and moments that are there."""

    def __init__(self, reconstruction: Tensor, mean: Tensor, logvar: Tensor) -> None:
        super().__init__()
        self._given = reconstruction, mean, logvar

    def forward(self, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._given


def _parts(network: STVae, layer: Layer) -> nn.ModuleList:
    """The modules of a layer, in the order of computation."""
    ends = {Stem: ("conv_in",), Head: ("norm_out", "conv_out")}
    names: Sequence[str] = [f"{layer.name}.{end}" for end in ends.get(type(layer), ())] or [layer.name]
    return nn.ModuleList(network.get_submodule(name) for name in names)
