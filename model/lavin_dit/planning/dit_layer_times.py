"""How long the J-DiT's layers take on this machine, each distinct one timed alone."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lavin_dit.dit.j_dit import JDit
from lavin_dit.dit.rope import Rotation
from lavin_dit.planning.dit_activations import Episodes, tokens_of_frame
from lavin_dit.planning.layer_times import Portion, Stopwatch, materialise, noise, passes_s
from lavin_dit.planning.workload import episodes_flops, largest_episodes
from lavin_dit.presets import MODULATIONS_PER_SIDE, PATCH_DIM, PATCH_SIZE, SPATIAL_FACTOR
from lavin_dit.training.finetuning import adapt, freeze
from lavin_dit.training.sharding import trained_weights
from lavin_dit.training_config import TrainDitConfig

SMALLEST = 64
"""Pixels of a side: of fewer tokens, large weights take longer to be read than to be multiplied, and a part says little of the whole."""
STOPWATCH = Stopwatch()
EMBEDDERS = ("prompt_embedder.", "answer_embedder.")
EMBEDDINGS = ("time_embedding.", "prompt_embed.", "answer_embed.")


@dataclass(frozen=True)
class Traits:
    """What blocks that take the same time have in common."""

    is_last: bool
    learns: tuple[bool, ...]
    """Of each of its weights."""
    is_passed: bool
    """Whether the backward pass goes on to the block before it, or to the embedders."""
    is_embedding_passed: bool
    """Whether it does so to the embedded time."""
    are_rows_passed: bool
    """Whether it does so to the table that every block's modulation is a row of."""


def dit_passes_s(config: TrainDitConfig, *, samples: int, resolution: int, frames: int = 1, stopwatch: Stopwatch = STOPWATCH) -> float:
    """A micro-batch of episodes that show the most pairs, forward and backward, with what the stopwatch's processes send."""

    def episodes(part: Portion) -> Episodes:
        return largest_episodes(config, samples=part.samples, resolution=part.resolution, frames=frames)

    def flops(part: Portion) -> float:
        return episodes_flops(config, episodes(part))

    def timed_s(part: Portion) -> float:
        shown = episodes(part)
        return _Timing(config, shown, _rotation(config, shown, part.resolution), stopwatch).all_s()

    return passes_s(Portion(samples, resolution), timed_s, flops, largest=1 / config.shape.depth, step=SMALLEST)


def _rotation(config: TrainDitConfig, episodes: Episodes, resolution: int) -> Rotation:
    side, frames = resolution // (SPATIAL_FACTOR * PATCH_SIZE), episodes.tokens // tokens_of_frame(resolution)
    return Rotation.of_grid(frames, side, side, config.shape.head_dim, device=torch.device("cpu"))


@dataclass(frozen=True)
class _Timing:
    config: TrainDitConfig
    episodes: Episodes
    rotation: Rotation
    stopwatch: Stopwatch

    def all_s(self) -> float:
        network, traits = _distinct(self.config)
        blocks = zip(network.blocks, traits.items(), strict=True)
        return self._ends_s(network) + sum(count * self._block_s(block, each) for block, (each, count) in blocks)

    def _block_s(self, block: nn.Module, traits: Traits) -> float:
        prompt, answer = self._tokens(is_passed=traits.is_passed)
        samples, dim = self.episodes.samples, self.config.shape.dim
        embedding = noise(samples, dim).requires_grad_(traits.is_embedding_passed)
        rows = noise(samples, 2 * MODULATIONS_PER_SIDE * dim).requires_grad_(traits.are_rows_passed)

        def call(prompt: Tensor, answer: Tensor, embedding: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            # Modulations are asked for outside of what is recomputed, and what they give goes through the table of all blocks' rows.
            modulation = block.modulation(embedding, embedding)  # type: ignore[operator]
            given = block(prompt, answer, rows, self.rotation)
            return (modulation, given) if traits.is_last else (modulation, *given)

        return self.stopwatch.layer_s(block, call, (prompt, answer, embedding, rows), self.config.execution)

    def _ends_s(self, network: JDit) -> float:
        """The layers before and after the blocks."""
        ends = nn.ModuleList([network.prompt_embedder, network.answer_embedder, network.time_embedding, network.final_layer])
        _, answer = self._tokens(is_passed=True)
        samples = self.episodes.samples
        patches = [noise(samples, tokens, PATCH_DIM) for tokens in (self.episodes.prompt, self.episodes.answer)]

        def call(prompt: Tensor, noisy: Tensor, time: Tensor, answer: Tensor) -> tuple[Tensor, ...]:
            embedding = network.time_embedding(time)
            last = network.final_layer(answer, network.final_layer.scale(embedding))
            return network.prompt_embedder(prompt), network.answer_embedder(noisy), last

        return self.stopwatch.layer_s(ends, call, (*patches, torch.linspace(0, 1, samples), answer), self.config.execution)

    def _tokens(self, *, is_passed: bool) -> tuple[Tensor, Tensor]:
        """The prompt's and the answer's."""
        samples, dim = self.episodes.samples, self.config.shape.dim
        prompt, answer = (noise(samples, each, dim).requires_grad_(is_passed) for each in (self.episodes.prompt, self.episodes.answer))
        return prompt, answer


def _distinct(config: TrainDitConfig) -> tuple[JDit, Counter[Traits]]:
    """A J-DiT with one block of each kind, and how many there are of each."""
    with torch.device("meta"):
        network = JDit(config.shape)
    freeze(network, config.frozen, key="train_dit.frozen")
    is_passed, is_embedding_passed = (_learns(network, names) and config.lora is None for names in (EMBEDDERS, EMBEDDINGS))
    are_rows_passed = is_embedding_passed or any("_modulation." in name for name in trained_weights(network))
    kinds: dict[Traits, nn.Module] = {}
    counts: Counter[Traits] = Counter()
    for index, block in enumerate(network.blocks):
        learns = tuple(weight.requires_grad for weight in block.parameters())
        traits = Traits(index + 1 == config.shape.depth, learns, is_passed, is_embedding_passed, are_rows_passed)
        kinds.setdefault(traits, block)
        counts[traits] += 1
        is_passed = is_passed or are_rows_passed or any(learns)
    network.blocks = nn.ModuleList(kinds.values())
    generator = torch.Generator().manual_seed(config.seed)
    materialise(network, generator)
    if config.lora:
        adapt(network, config.lora, generator)
    return network, counts


def _learns(network: JDit, names: tuple[str, ...]) -> bool:
    """Whether any of the weights whose names begin so is trained."""
    return any(f"{name}.".startswith(names) for name in trained_weights(network))
