"""What a model answers to held-out queries: its pictures, its loss on the truths, and the truths through its ST-VAE alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from lavin_dit.config import EvaluateConfig
from lavin_dit.data.pixels import CLIP_DIMENSIONS, Pixels
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.dit.j_dit import JDit
from lavin_dit.evaluation.held_out_loss import held_out_losses
from lavin_dit.evaluation.queries import Query
from lavin_dit.inference import decode_clips, encode_clips, encode_prompt, sample_answer, to_model
from lavin_dit.sampling import starting_noise
from lavin_dit.weights import TrainedVae


@dataclass(frozen=True)
class Question:
    """A query with its pictures, or its clips. Shapes: input and truth (h, w, 3) uint8, or (t, h, w, 3)."""

    query: Query
    context: tuple[ImagePair, ...] | tuple[ClipPair, ...]
    input: Pixels
    truth: Pixels


@dataclass(frozen=True)
class Answers:
    """What came back for a batch of questions, on the CPU. Shapes: pictures `(b, c, t, h, w)` in about [-1, 1], losses `(b,)`."""

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
        truth = encode_clips(self.vae, _stack(each.truth for each in questions).to(self.device))
        indices = [each.query.index for each in questions]
        return Answers(
            predictions=decode_clips(self.vae, self._sample(prompt, indices, tuple(truth.shape[1:]))).cpu(),
            reconstructions=decode_clips(self.vae, truth).cpu(),
            losses=held_out_losses(self.dit, prompt, truth, indices=indices, seed=self.config.seed).cpu(),
        )

    def _sample(self, prompt: Tensor, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        sampling = self.config.sampling
        noise = torch.stack([torch.from_numpy(starting_noise(shape, seed=self.config.seed, index=index)) for index in indices])
        # Without pairs, what guidance leads away from is the prompt itself.
        scale = sampling.guidance_scale if sampling.num_pairs else 1.0
        return sample_answer(self.dit, prompt, noise=noise.to(self.device), num_points=sampling.num_points, guidance_scale=scale)


def in_batches(queries: Iterable[Query], batch_size: int) -> Iterator[list[Query]]:
    """Consecutive queries that are answered at once: of pictures `batch_size`, of clips as many as have about as many frames."""
    for num_frames, group in groupby(queries, key=lambda query: len(query.pair.input)):
        alike, size = list(group), max(1, batch_size // num_frames)
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def ask(query: Query, shards: ShardSet) -> Question:
    """Reads a query's pictures."""
    pairs = (query.pair, *query.context)
    if len(query.pair.input) > 1:
        clip, *clips = (ClipPair(shards.frames(pair.input), shards.frames(pair.target)) for pair in pairs)
        return Question(query, tuple(clips), clip.input, clip.target)
    image, *images = (ImagePair(shards.image(pair.input[0]), shards.image(pair.target[0])) for pair in pairs)
    return Question(query, tuple(images), image.input, image.target)


def _stack(pixels: Iterable[Pixels]) -> Tensor:
    """Shapes: to `(b, c, t, h, w)`, a picture as a clip of one frame."""
    return torch.stack([to_model(each if each.ndim == CLIP_DIMENSIONS else each[None]) for each in pixels])


def _contexts(rows: Iterable[Sequence[Pixels]]) -> Tensor:
    """Shapes: to `(b, n, c, t, h, w)`; where there are no pairs, n is 0 and the pictures have no size."""
    shown = list(rows)
    return torch.stack([_stack(row) for row in shown]) if shown[0] else torch.empty(len(shown), 0, 3, 0, 0, 0)
