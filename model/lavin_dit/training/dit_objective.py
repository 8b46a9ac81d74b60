"""The J-DiT's objective: flow matching on in-context episodes of latents."""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lavin_dit.data.episodes import Episode, EpisodeSampler
from lavin_dit.data.shards.shard_set import Member
from lavin_dit.dit.j_dit import JDit
from lavin_dit.flow import flow_loss, logit_normal_time, path_sample
from lavin_dit.inference import assemble_prompt, drop_prompt
from lavin_dit.planning.dit_activations import Episodes as Sizes
from lavin_dit.planning.layers import dit_training_flops
from lavin_dit.presets import PATCH_SIZE
from lavin_dit.training.objective import Cost, Losses, Objective, Tally
from lavin_dit.training_config import TrainDitConfig

NUM_TIME_BUCKETS = 10
TIME_BUCKETS = tuple(f"{index / NUM_TIME_BUCKETS:.1f}" for index in range(NUM_TIME_BUCKETS))
"""Where each begins."""


@dataclass(frozen=True)
class Episodes:
    """A micro-batch of episodes of pictures, where f = 1, or of clips.

    Shapes: answer and noise `(b, z, f, y, x)`, prompt `(b, z, (2n + 1) f, y, x)`, time, is_dropped and task (an index) `(b,)`.
    """

    answer: Tensor
    noise: Tensor
    prompt: Tensor
    time: Tensor
    is_dropped: Tensor
    task: Tensor
    ways: tuple[bool, bool]
    """Whether any episode of the whole step keeps its prompt, and whether any drops it."""


class Latents(Protocol):
    """Normalised latents of pictures and clips, by their frames. Shapes: each `(z, f, y, x)`."""

    def __getitem__(self, frames: tuple[Member, ...], /) -> Tensor: ...


class DitObjective(Objective[Episodes]):
    """Flow matching over in-context episodes, with some prompts dropped for classifier-free guidance."""

    network: JDit

    def __init__(self, network: JDit, latents: Latents, sampler: EpisodeSampler, config: TrainDitConfig, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self._latents, self._sampler, self._config, self._device = latents, sampler, config, device
        self._tasks = sampler.tasks
        self._flops = cache(lambda prompt, answer: dit_training_flops(config, Sizes(1, prompt, answer)))

    def batch(self, step: int, samples: range) -> Episodes:
        drops = self._sampler.drops(step, self._config.batch_size)
        episodes = [self._sampler.draw(step, sample) for sample in samples]
        stacks = zip(*(self._tensors(episode) for episode in episodes), strict=True)
        inputs, targets, query, answer = (torch.stack(stack).to(self._device) for stack in stacks)
        normal = torch.tensor([episode.time_normal for episode in episodes], device=self._device)
        noise = torch.from_numpy(np.stack([episode.noise for episode in episodes])).to(self._device)
        return Episodes(
            answer=answer,
            noise=noise,
            prompt=assemble_prompt(inputs, targets, query),
            time=logit_normal_time(normal, shift=self._config.time_shift),
            is_dropped=torch.tensor([bool(drops[sample]) for sample in samples], device=self._device),
            task=torch.tensor([self._tasks.index(episode.group[0]) for episode in episodes], device=self._device),
            ways=(not drops.all(), bool(drops.any())),
        )

    def forward(self, batch: Episodes) -> Losses:
        path = path_sample(batch.answer, batch.noise, batch.time)
        predicted = self._velocity(path.z_t, batch)
        loss = flow_loss(predicted, path.velocity, absolute_weight=self._config.absolute_weight)
        bucket = (batch.time * NUM_TIME_BUCKETS).long().clamp(max=NUM_TIME_BUCKETS - 1)
        return Losses(
            loss.total,
            {"squared": loss.squared.detach(), "absolute": loss.absolute.detach()},
            {
                "task": _tally(self._tasks, batch.task, loss.per_sample),
                "time": _tally(TIME_BUCKETS, bucket, loss.per_sample),
            },
        )

    def cost(self, batch: Episodes) -> Cost:
        _, _, num_frames, y, x = batch.answer.shape
        frame = y * x // PATCH_SIZE**2
        num_dropped = int(batch.is_dropped.sum())
        total = Cost(0, 0.0)
        for samples, frames in ((len(batch.time) - num_dropped, batch.prompt.shape[2]), (num_dropped, 1 + num_frames)):
            flops = self._flops(frames * frame, num_frames * frame)
            total += Cost(samples * (frames + num_frames) * frame, samples * flops)
        return total

    def _velocity(self, z_t: Tensor, batch: Episodes) -> Tensor:
        """The network's velocity, episodes with and without their prompt apart, since their lengths differ.

        Every process calls the network equally often, so that sharded weights can be gathered: where none of its own episodes go a
        way that others of the step go, it sends its first one and makes nothing of the answer.
        """
        velocity = torch.zeros_like(z_t)
        dropped = drop_prompt(batch.prompt, num_frames=z_t.shape[2])
        for goes, rows, prompt in zip(batch.ways, (~batch.is_dropped, batch.is_dropped), (batch.prompt, dropped), strict=True):
            if rows.any():
                velocity[rows] = self.network(z_t[rows], prompt[rows], batch.time[rows]).to(velocity.dtype)
            elif goes:
                velocity[:1] = velocity[:1] + 0.0 * self.network(z_t[:1], prompt[:1], batch.time[:1]).to(velocity.dtype)
        return velocity

    def _tensors(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pairs = self._sampler.groups[episode.group]
        context, query = [pairs[position] for position in episode.context], pairs[episode.query]
        inputs = torch.stack([self._latents[pair.input] for pair in context])
        targets = torch.stack([self._latents[pair.target] for pair in context])
        return inputs, targets, self._latents[query.input], self._latents[query.target]


def _tally(names: tuple[str, ...], index: Tensor, values: Tensor) -> Tally:
    zeros = torch.zeros(len(names), device=values.device)
    return Tally(names, zeros.index_add(0, index, values.float()), zeros.index_add(0, index, torch.ones_like(values, dtype=torch.float32)))
