"""What a model answers to held-out queries: its pictures, its loss on the truths, and the truths through its ST-VAE alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lavin_dit.config import EvaluateConfig
from lavin_dit.data.encodings import Picture
from lavin_dit.data.shards import Pair, ShardSet
from lavin_dit.data.tasks import ImagePair
from lavin_dit.dit.j_dit import JDit
from lavin_dit.evaluation.held_out_loss import held_out_losses
from lavin_dit.evaluation.queries import Query
from lavin_dit.inference import decode_images, encode_images, encode_prompt, sample_answer, to_model
from lavin_dit.presets import LATENT_CHANNELS
from lavin_dit.sampling import starting_noise
from lavin_dit.weights import TrainedVae


@dataclass(frozen=True)
class Question:
    """A query with its pictures."""

    query: Query
    context: tuple[ImagePair, ...]
    input: Picture
    truth: Picture


@dataclass(frozen=True)
class Answers:
    """What came back for a batch of questions, on the CPU. Shapes: pictures `(b, c, h, w)` in about [-1, 1], losses `(b,)`."""

    predictions: Tensor
    reconstructions: Tensor
    losses: Tensor


@dataclass(frozen=True)
class Model:
    """The two networks on their device, and how they are sampled."""

    vae: TrainedVae
    dit: JDit
    config: EvaluateConfig
    device: torch.device

    @torch.no_grad()
    def answer(self, questions: Sequence[Question]) -> Answers:
        """Answers a batch; each question's noise depends on its own number alone."""
        prompt = encode_prompt(
            self.vae,
            context_inputs=_contexts([pair.input for pair in each.context] for each in questions).to(self.device),
            context_targets=_contexts([pair.target for pair in each.context] for each in questions).to(self.device),
            queries=_stack(each.input for each in questions).to(self.device),
        )
        truth = encode_images(self.vae, _stack(each.truth for each in questions).to(self.device))
        indices = [each.query.index for each in questions]
        return Answers(
            predictions=decode_images(self.vae, self._sample(prompt, indices)).cpu(),
            reconstructions=decode_images(self.vae, truth).cpu(),
            losses=held_out_losses(self.dit, prompt, truth[:, :, None], indices=indices, seed=self.config.seed).cpu(),
        )

    def _sample(self, prompt: Tensor, indices: Sequence[int]) -> Tensor:
        sampling = self.config.sampling
        shape = (LATENT_CHANNELS, 1, *prompt.shape[3:])
        noise = torch.stack([torch.from_numpy(starting_noise(shape, seed=self.config.seed, index=index)) for index in indices])
        # Without pairs, what guidance leads away from is the prompt itself.
        scale = sampling.guidance_scale if sampling.num_pairs else 1.0
        answer = sample_answer(self.dit, prompt, noise=noise.to(self.device), num_points=sampling.num_points, guidance_scale=scale)
        return answer[:, :, 0]


def ask(query: Query, shards: ShardSet) -> Question:
    """Reads a query's pictures."""
    pair, *context = (_read(pair, shards) for pair in (query.pair, *query.context))
    return Question(query, tuple(context), pair.input, pair.target)


def _read(pair: Pair, shards: ShardSet) -> ImagePair:
    return ImagePair(shards.image(pair.input[0]), shards.image(pair.target[0]))


def _stack(pictures: Iterable[Picture]) -> Tensor:
    return torch.stack([to_model(picture) for picture in pictures])


def _contexts(rows: Iterable[Sequence[Picture]]) -> Tensor:
    """Shapes: to `(b, n, c, h, w)`; where there are no pairs, n is 0 and the pictures have no size."""
    pictures = list(rows)
    return torch.stack([_stack(row) for row in pictures]) if pictures[0] else torch.empty(len(pictures), 0, 3, 0, 0)
