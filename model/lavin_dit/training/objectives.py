"""What is trained: the ST-VAE on single pictures, the J-DiT on in-context episodes of latents."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lavin_dit.config import TrainDitConfig, TrainVaeConfig
from lavin_dit.data.episodes import Episode, EpisodeSampler
from lavin_dit.data.latents import LatentStore, unique_members
from lavin_dit.data.order import sample_at
from lavin_dit.data.shards import ShardSet
from lavin_dit.dit.j_dit import JDit
from lavin_dit.flow import flow_loss, logit_normal_time, path_sample
from lavin_dit.inference import assemble_prompt, drop_prompt, to_model
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR
from lavin_dit.training.fit import Objective
from lavin_dit.vae.losses import vae_losses
from lavin_dit.vae.st_vae import STVae

NOISE_STREAM = 1


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures and the noise of their posterior draws. Shapes: pixels `(b, c, 1, h, w)`, noise `(b, z, 1, y, x)`."""

    pixels: Tensor
    noise: Tensor


class VaeObjective(Objective[Pictures]):
    """Reconstruction of every distinct picture of the training shards, inputs and targets alike."""

    network: STVae

    def __init__(self, network: STVae, shards: ShardSet, config: TrainVaeConfig, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self._shards, self._config, self._device = shards, config, device
        self._members = unique_members(shards)

    def batch(self, step: int, samples: range) -> Pictures:
        positions = [step * self._config.batch_size + sample for sample in samples]
        chosen = [self._members[sample_at(position, len(self._members), seed=self._config.seed)] for position in positions]
        pixels = torch.stack([to_model(self._shards.image(member)) for member in chosen])
        side = self._shards.resolution // SPATIAL_FACTOR
        noise = [self._noise(position, (LATENT_CHANNELS, 1, side, side)) for position in positions]
        return Pictures(pixels[:, :, None].to(self._device), torch.stack(noise).to(self._device))

    def forward(self, batch: Pictures) -> dict[str, Tensor]:
        moments = self.network.encode(batch.pixels)
        reconstruction = self.network.decode(moments.sample(batch.noise))
        return vae_losses(
            reconstruction, batch.pixels, moments, absolute_weight=self._config.absolute_weight, kl_weight=self._config.kl_weight
        )

    def _noise(self, position: int, shape: tuple[int, ...]) -> Tensor:
        random = np.random.default_rng([self._config.seed, NOISE_STREAM, position])
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True)
class Episodes:
    """A batch of episodes.

    Shapes: answer and noise `(b, z, 1, y, x)`, prompt `(b, z, 2n + 1, y, x)`, time and is_dropped `(b,)`.
    """

    answer: Tensor
    noise: Tensor
    prompt: Tensor
    time: Tensor
    is_dropped: Tensor


class DitObjective(Objective[Episodes]):
    """Flow matching over in-context episodes, with some prompts dropped for classifier-free guidance."""

    network: JDit

    def __init__(self, network: JDit, latents: LatentStore, sampler: EpisodeSampler, config: TrainDitConfig, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self._latents, self._sampler, self._config, self._device = latents, sampler, config, device

    def batch(self, step: int, samples: range) -> Episodes:
        episodes = [self._sampler.draw(step, sample) for sample in samples]
        stacks = zip(*(self._tensors(episode) for episode in episodes), strict=True)
        inputs, targets, query, answer = (torch.stack(stack).to(self._device) for stack in stacks)
        normal = torch.tensor([episode.time_normal for episode in episodes], device=self._device)
        noise = torch.from_numpy(np.stack([episode.noise for episode in episodes])).to(self._device)
        return Episodes(
            answer=answer[:, :, None],
            noise=noise,
            prompt=assemble_prompt(inputs, targets, query),
            time=logit_normal_time(normal, shift=self._config.time_shift),
            is_dropped=torch.tensor([episode.is_prompt_dropped for episode in episodes], device=self._device),
        )

    def forward(self, batch: Episodes) -> dict[str, Tensor]:
        path = path_sample(batch.answer, batch.noise, batch.time)
        predicted = self._velocity(path.z_t, batch)
        loss = flow_loss(predicted, path.velocity, absolute_weight=self._config.absolute_weight)
        return {"loss": loss.total, "squared": loss.squared, "absolute": loss.absolute}

    def _velocity(self, z_t: Tensor, batch: Episodes) -> Tensor:
        """The network's velocity, episodes with and without their prompt apart, since their lengths differ."""
        velocity = torch.empty_like(z_t)
        for rows, prompt in ((~batch.is_dropped, batch.prompt), (batch.is_dropped, drop_prompt(batch.prompt))):
            if rows.any():
                velocity[rows] = self.network(z_t[rows], prompt[rows], batch.time[rows])
        return velocity

    def _tensors(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pairs = self._sampler.pairs[episode.task]
        context, query = [pairs[position] for position in episode.context], pairs[episode.query]
        inputs = torch.stack([self._latents[pair.input] for pair in context])
        targets = torch.stack([self._latents[pair.target] for pair in context])
        return inputs, targets, self._latents[query.input], self._latents[query.target]
