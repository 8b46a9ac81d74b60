"""The ST-VAE's objective: reconstruction of every distinct picture of the training shards, and in a second stage of clips too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lavin_dit.data.reading.loading import PictureLoader
from lavin_dit.data.reading.shard_cache import ShardCache
from lavin_dit.data.reading.shard_windows import ShardWindows, WholeSet
from lavin_dit.data.shards.shard_set import Member, ShardSet
from lavin_dit.errors import InputError
from lavin_dit.inference import to_model
from lavin_dit.planning.flops import vae_flops
from lavin_dit.planning.layers import vae_passes
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import terms_flops
from lavin_dit.presets import latent_shape
from lavin_dit.training.objective import Adversary, Cost, Losses, Objective
from lavin_dit.training_config import AdversarialConfig, ClipsConfig, TrainVaeConfig
from lavin_dit.vae.adversarial import fight, pull_norm, slope_of
from lavin_dit.vae.balance import ADVERSARIAL_PULL, RECONSTRUCTION_PULL, Balance
from lavin_dit.vae.discriminator import PatchDiscriminator
from lavin_dit.vae.losses import PixelLosses, kl_loss, pixel_losses
from lavin_dit.vae.perceptual import perceptual_term
from lavin_dit.vae.st_vae import Moments, STVae

DECODING_THREADS = 4
"""Of each process, beside the one that reads; on fewer cores they take turns."""
NOISE_STREAM, CLIP_STREAM, WINDOW_STREAM, DISCRIMINATOR_STREAM = 1, 2, 3, 4


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures or of clips, and the noise of their posterior draws.

    Shapes: pixels `(b, c, t, h, w)`, t = 1 for pictures; noise `(b, z, f, y, x)`.
    """

    pixels: Tensor
    noise: Tensor
    step: int
    """The data position that they were drawn for."""


class VaeObjective(Objective[Pictures]):
    """Squared and absolute error, KL, and where asked for a perceptual and an adversarial term, on pictures and clips."""

    network: STVae

    def __init__(
        self, network: STVae, shards: ShardSet, config: TrainVaeConfig, device: torch.device, *, cache: ShardCache | None = None
    ) -> None:
        """`cache` is what the shards are read through where they are not local.

        Raises: InputError where the shards hold nothing, or no clips of the length asked for, or the file of features is not what it
        should be.
        """
        super().__init__()
        if not (shards.pairs or shards.clips):
            raise InputError(f"{shards.folder}: holds no pictures to train on; set prepare.num_{shards.folder.name}_scenes above 0")
        if config.clips:
            check_clips(shards, config.clips)
        if config.adversarial:
            _check_halvings(shards, config.adversarial)
        self.network = network
        self.perceptual = perceptual_term(config.perceptual)
        self.discriminator = _make_discriminator(config)
        self.balance = Balance()
        self._config, self._device, self._passes = config, device, vae_passes(config)
        self._loader = PictureLoader(shards, num_threads=DECODING_THREADS)
        self._streams = _streams(shards, config, cache)

    def batch(self, step: int, samples: range) -> Pictures:
        positions = [step * self._config.batch_size + sample for sample in samples]
        clips = self._config.clips
        frames: Iterable[Member]
        if clips and self._sees_clips(step, clips):
            t, frames = clips.frames, self._clips(positions, clips.frames)
        else:
            t, frames = 1, map(self._streams.pictures.at, positions)
        pictures = [to_model(picture) for picture in self._loader.pictures(frames)]
        pixels = torch.stack([torch.stack(pictures[first : first + t], dim=1) for first in range(0, len(pictures), t)])
        latent = latent_shape(*pixels.shape[2:])
        noise = torch.stack([self._noise(position, latent) for position in positions])
        return Pictures(pixels.to(self._device), noise.to(self._device), step)

    def forward(self, batch: Pictures) -> Losses:
        reconstruction, mean, logvar = self.network(batch.pixels, batch.noise)
        kl = kl_loss(Moments(mean.float(), logvar.float()), batch.pixels)
        if self.discriminator:
            losses = self._fought_over(self.discriminator, reconstruction.float(), batch)
        else:
            terms = self._terms(reconstruction.float(), batch.pixels)
            losses = Losses(terms.per_sample.mean(), terms.parts)
        return Losses(losses.total + self._config.kl_weight * kl, losses.parts | {"kl": kl.detach()})

    def cost(self, batch: Pictures) -> Cost:
        samples, _, frames, height, width = batch.pixels.shape
        network = self._passes * sum(vae_flops(self._config.shape, samples=samples, frames=frames, height=height, width=width))
        terms = samples * terms_flops(self._config, Volume(frames, height, width))
        return Cost(tokens=batch.noise[:, 0].numel(), flops=network + terms)

    def adversary(self) -> Adversary | None:
        if not self.discriminator or not self._config.adversarial:
            return None
        return Adversary(self.discriminator, self._config.adversarial.learning_rate)

    def observe(self, means: Mapping[str, float]) -> None:
        if self.discriminator:
            self.balance.observe(means)

    def state(self) -> dict[str, float]:
        return self.balance.state() if self.discriminator else {}

    def take_up(self, state: Mapping[str, float]) -> None:
        if self.discriminator:
            self.balance.take_up(state)

    def close(self) -> None:
        """Ends the threads that decode; there are no batches afterwards."""
        self._loader.close()

    def _terms(self, reconstruction: Tensor, pixels: Tensor) -> PixelLosses:
        losses = pixel_losses(reconstruction, pixels, absolute_weight=self._config.absolute_weight)
        if self.perceptual is None:
            return losses
        return losses.plus("perceptual", self.perceptual(reconstruction, pixels), weight=self._config.perceptual.weight)

    def _fought_over(self, discriminator: PatchDiscriminator, reconstruction: Tensor, batch: Pictures) -> Losses:
        """The terms at the pixels and the discriminator's loss; what each term wants is measured at the pixels, and learnt in one go.

        The total's value is that of the reconstruction's terms alone: the scores of a discriminator that learns say nothing about how good
        a reconstruction is, and change sign.
        """
        shown = reconstruction.detach().requires_grad_()
        terms = self._terms(shown, batch.pixels)
        (wanted,) = torch.autograd.grad(terms.per_sample.sum(), shown)
        duel = fight(discriminator, shown, batch.pixels)
        pull = wanted + self.adversarial_weight(batch.step) * duel.pull
        learnt = (reconstruction * pull).flatten(1).sum(dim=1).mean()
        return Losses(
            terms.per_sample.mean().detach() + slope_of(learnt) + slope_of(duel.hinge),
            terms.parts
            | {
                "adversarial": duel.adversarial,
                "discriminator": duel.hinge.detach(),
                RECONSTRUCTION_PULL: pull_norm(wanted),
                ADVERSARIAL_PULL: pull_norm(duel.pull),
            },
        )

    def adversarial_weight(self, step: int) -> float:
        """The factor of the adversarial loss at a data position; the discriminator itself learns from the first step on."""
        adversarial = self._config.adversarial
        return self.balance.weight(adversarial.weight) if adversarial and step >= adversarial.first_step else 0.0

    def _sees_clips(self, step: int, clips: ClipsConfig) -> bool:
        return step >= clips.first_step and np.random.default_rng([self._config.seed, CLIP_STREAM, step]).random() < clips.share

    def _clips(self, positions: Sequence[int], num_frames: int) -> Iterator[Member]:
        """Of each clip as many consecutive frames, from anywhere in it."""
        assert self._streams.clips
        for position in positions:
            frames = self._streams.clips.at(position).frames
            random = np.random.default_rng([self._config.seed, WINDOW_STREAM, position])
            first = int(random.integers(len(frames) - num_frames + 1))
            yield from frames[first : first + num_frames]

    def _noise(self, position: int, shape: tuple[int, ...]) -> Tensor:
        random = np.random.default_rng([self._config.seed, NOISE_STREAM, position])
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))


def _streams(shards: ShardSet, config: TrainVaeConfig, cache: ShardCache | None) -> ShardWindows | WholeSet:
    if config.loading is None:
        return WholeSet(shards, seed=config.seed)
    return ShardWindows(shards, window_shards=config.loading.window_shards, seed=config.seed, cache=cache)


def check_clips(shards: ShardSet, clips: ClipsConfig) -> None:
    """Raises: InputError where a set of shards has no clips of the length that training asks for."""
    if not shards.clips:
        raise InputError(
            f"{shards.folder}: holds no clips, which train_vae.clips asks for; set prepare.num_{shards.folder.name}_clips above 0"
        )
    if clips.frames > shards.clip_frames:
        raise InputError(f"train_vae.clips.frames is {clips.frames}: the clips in {shards.folder} have {shards.clip_frames} frames")


def _check_halvings(shards: ShardSet, adversarial: AdversarialConfig) -> None:
    try:
        adversarial.check_side(shards.resolution)
    except ValueError as error:
        raise InputError(f"train_vae.{error} ({shards.folder})") from error


def _make_discriminator(config: TrainVaeConfig) -> PatchDiscriminator | None:
    if not config.adversarial:
        return None
    discriminator = PatchDiscriminator(config.adversarial.width, config.adversarial.num_layers)
    seed = np.random.SeedSequence([config.seed, DISCRIMINATOR_STREAM]).generate_state(1, np.uint64)[0]
    discriminator.initialise(torch.Generator().manual_seed(int(seed >> np.uint64(1))))
    return discriminator
