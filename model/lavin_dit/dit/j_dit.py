"""The joint diffusion transformer: the velocity of an answer, given a prompt of example pairs. Source: LaVin-DiT, section 3.3."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from lavin_dit.dit.blocks import Block, Embedder, FinalLayer, LastBlock, SideModulation, TimeEmbedding
from lavin_dit.dit.rope import Rotation
from lavin_dit.presets import PATCH_DIM, PATCH_SIZE, DitShape

INIT_STD = 0.02


@dataclass(frozen=True)
class TimeTable:
    """Everything in the network that depends on the time alone; for a fixed time grid it replaces the modulation weights.

    Shapes: blocks `(s, depth, 8d)`, final `(s, d)`, for s times.
    """

    blocks: Tensor
    final: Tensor


class JDit(nn.Module):
    """The J-DiT: a prompt side and an answer side with weights of their own, joined in attention."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.shape = shape
        self.prompt_embedder = Embedder(PATCH_DIM, shape.dim)
        self.answer_embedder = Embedder(PATCH_DIM, shape.dim)
        self.prompt_embed = nn.Parameter(torch.empty(1, shape.dim))
        self.answer_embed = nn.Parameter(torch.empty(1, shape.dim))
        self.time_embedding = TimeEmbedding(shape.dim)
        self.blocks = nn.ModuleList([*(Block(shape) for _ in range(shape.depth - 1)), LastBlock(shape)])
        self.final_layer = FinalLayer(shape.dim, PATCH_DIM)

    def forward(self, answer: Tensor, prompt: Tensor, time: Tensor) -> Tensor:
        """The velocity of noisy answers.

        Shapes: answer `(b, z, f, y, x)`, prompt `(b, z, f', y, x)`, time `(b,)` in [0, 1], to `(b, z, f, y, x)`.
        """
        return self.forward_tabled(answer, prompt, self.time_table(time))

    def time_table(self, time: Tensor) -> TimeTable:
        """The modulations at some times. Shapes: `(s,)` to a table of s rows."""
        embedding = self.time_embedding(time)
        prompt_embedding, answer_embedding = embedding + self.prompt_embed, embedding + self.answer_embed
        rows = [block.modulation(prompt_embedding, answer_embedding) for block in self.blocks]  # type: ignore[operator]
        return TimeTable(torch.stack(rows, dim=1), self.final_layer.scale(embedding))

    def forward_tabled(self, answer: Tensor, prompt: Tensor, table: TimeTable) -> Tensor:
        """The velocity with the modulations given: a row a sample, or one row for all of the batch."""
        rows, columns = answer.shape[3] // PATCH_SIZE, answer.shape[4] // PATCH_SIZE
        frames = prompt.shape[2] + answer.shape[2]
        rotation = Rotation.of_grid(frames, rows, columns, self.shape.head_dim, device=answer.device)
        prompt_tokens = self.prompt_embedder(to_patches(prompt))
        answer_tokens = self.answer_embedder(to_patches(answer))
        for index, block in enumerate(self.blocks[:-1]):
            prompt_tokens, answer_tokens = block(prompt_tokens, answer_tokens, table.blocks[:, index], rotation)
        answer_tokens = self.blocks[-1](prompt_tokens, answer_tokens, table.blocks[:, -1], rotation)
        return from_patches(self.final_layer(answer_tokens, table.final), rows, columns)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sets every weight: Xavier-uniform linears, zero biases, small embeddings, zero modulations and final layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for weight in (self.prompt_embed, self.answer_embed, self.time_embedding.mlp[0].weight, self.time_embedding.mlp[2].weight):
            nn.init.normal_(weight, std=INIT_STD, generator=generator)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, SideModulation):
                nn.init.zeros_(module.linear.weight)
        nn.init.zeros_(self.final_layer.modulation.weight)
        nn.init.zeros_(self.final_layer.linear.weight)


def to_patches(latents: Tensor) -> Tensor:
    """Shapes: `(b, z, f, y, x)` to tokens `(b, l, 64)`, each in `(ph pw c)` order."""
    return rearrange(latents, "b z f (y ph) (x pw) -> b (f y x) (ph pw z)", ph=PATCH_SIZE, pw=PATCH_SIZE)


def from_patches(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `to_patches` for a grid of `rows` by `columns` tokens a frame."""
    return rearrange(tokens, "b (f y x) (ph pw z) -> b z f (y ph) (x pw)", y=rows, x=columns, ph=PATCH_SIZE, pw=PATCH_SIZE)
