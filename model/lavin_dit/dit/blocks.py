"""Layers of the J-DiT: per-side weights, joint attention, modulation by scale and gate only."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from lavin_dit.dit.rope import Rotation, rotate
from lavin_dit.presets import MODULATIONS_PER_SIDE, TIME_FEATURES, DitShape

NORM_EPS = 1e-6
TIME_PERIOD = 10_000.0


def rms_norm(x: Tensor) -> Tensor:
    """RMS norm over the last axis, without weights."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPS)


@dataclass(frozen=True)
class Modulation:
    """How strongly a branch is scaled before it, and let through after it. Shapes: both `(b, 1, d)`."""

    scale: Tensor
    gate: Tensor

    def enter(self, x: Tensor) -> Tensor:
        return rms_norm(x) * (1.0 + self.scale)

    def leave(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + self.gate * rms_norm(branch)


class TimeEmbedding(nn.Module):
    """Times `(s,)` in [0, 1] to `(s, d)`; the time is not scaled before its sinusoids."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, time: Tensor) -> Tensor:
        half = TIME_FEATURES // 2
        frequencies = torch.exp(-math.log(TIME_PERIOD) * torch.arange(half, device=time.device, dtype=torch.float32) / half)
        angles = time.float()[:, None] * frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(features.to(self.mlp[0].weight.dtype))  # type: ignore[no-any-return, arg-type]


class SideModulation(nn.Module):
    """One side's modulation of one block. Shapes: embedding `(s, d)` to `(s, 4d)`: scale, gate, scale, gate (through tanh)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, MODULATIONS_PER_SIDE * dim)

    def forward(self, embedding: Tensor) -> Tensor:
        scale1, gate1, scale2, gate2 = self.linear(F.silu(embedding)).chunk(MODULATIONS_PER_SIDE, dim=-1)
        return torch.cat([scale1, gate1.tanh(), scale2, gate2.tanh()], dim=-1)


class SideProjections(nn.Module):
    """One side's query, key, value and output projections; queries and keys are normed over their whole width."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        kv_dim = shape.num_kv_heads * shape.head_dim
        self.query = nn.Linear(shape.dim, shape.dim, bias=False)
        self.key = nn.Linear(shape.dim, kv_dim, bias=False)
        self.value = nn.Linear(shape.dim, kv_dim, bias=False)
        self.query_norm = nn.RMSNorm(shape.dim, eps=NORM_EPS)
        self.key_norm = nn.RMSNorm(kv_dim, eps=NORM_EPS)
        self.out = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes: `(b, l, d)` to queries `(b, n, l, e)`, keys and values `(b, k, l, e)`."""
        return (self._heads(_normed(self.query_norm, self.query(x))), *self.key_value(x))

    def key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values alone."""
        return self._heads(_normed(self.key_norm, self.key(x))), self._heads(self.value(x))

    def _heads(self, projected: Tensor) -> Tensor:
        return rearrange(projected, "b l (n e) -> b n l e", e=self.head_dim)


def _normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """In the precision of the norm's weights: torch has one kernel where both are alike, and some twenty in half precision's place."""
    return norm(x.to(norm.weight.dtype))  # type: ignore[no-any-return]


class JointAttention(nn.Module):
    """Full attention over prompt and answer together, with each side's own projections."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.prompt = SideProjections(shape)
        self.answer = SideProjections(shape)

    def forward(self, prompt: Tensor, answer: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        sides = zip(self.prompt(prompt), self.answer(answer), strict=True)
        query, key, value = (torch.cat(both, dim=2) for both in sides)
        attended = attend(rotate(query, rotation), rotate(key, rotation), value)
        num_prompt = prompt.shape[1]
        return self.prompt.out(attended[:, :num_prompt]), self.answer.out(attended[:, num_prompt:])


class AnswerAttention(JointAttention):
    """The answer's half of joint attention, for a block whose prompt nobody reads."""

    def forward(self, prompt: Tensor, answer: Tensor, rotation: Rotation) -> Tensor:  # type: ignore[override]
        query, answer_key, answer_value = self.answer(answer)
        prompt_key, prompt_value = self.prompt.key_value(prompt)
        key, value = torch.cat([prompt_key, answer_key], dim=2), torch.cat([prompt_value, answer_value], dim=2)
        attended = attend(rotate(query, rotation.after(prompt.shape[1])), rotate(key, rotation), value)
        return self.answer.out(attended)  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Full attention with grouped queries. Shapes: queries `(b, n, l, e)`, keys and values `(b, k, l', e)`, to `(b, l, n e)`."""
    attended = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    return rearrange(attended, "b n l e -> b l (n e)")


class FeedForward(nn.Module):
    """SwiGLU without biases."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.dim, shape.hidden_dim, bias=False)
        self.up = nn.Linear(shape.dim, shape.hidden_dim, bias=False)
        self.down = nn.Linear(shape.hidden_dim, shape.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One J-DiT block: joint attention, then each side's feed-forward, both in norm sandwiches."""

    def __init__(self, shape: DitShape) -> None:
        super().__init__()
        self.attention = JointAttention(shape)
        self.prompt_feed_forward = FeedForward(shape)
        self.answer_feed_forward = FeedForward(shape)
        self.prompt_modulation = SideModulation(shape.dim)
        self.answer_modulation = SideModulation(shape.dim)

    def modulation(self, prompt_embedding: Tensor, answer_embedding: Tensor) -> Tensor:
        """Shapes: embeddings `(s, d)` to `(s, 8d)`: the prompt's four, then the answer's four."""
        return torch.cat([self.prompt_modulation(prompt_embedding), self.answer_modulation(answer_embedding)], dim=-1)

    def forward(self, prompt: Tensor, answer: Tensor, modulation: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Shapes: prompt `(b, p, d)`, answer `(b, a, d)`, modulation `(b or 1, 8d)`."""
        prompt_attention, prompt_mlp, answer_attention, answer_mlp = split_modulation(modulation)
        from_prompt, from_answer = self.attention(prompt_attention.enter(prompt), answer_attention.enter(answer), rotation)
        prompt = prompt_attention.leave(prompt, from_prompt)
        answer = answer_attention.leave(answer, from_answer)
        prompt = prompt_mlp.leave(prompt, self.prompt_feed_forward(prompt_mlp.enter(prompt)))
        answer = answer_mlp.leave(answer, self.answer_feed_forward(answer_mlp.enter(answer)))
        return prompt, answer


class LastBlock(Block):
    """A block that gives the answer alone, since nobody reads its prompt.

    The weights that make the prompt's half are there, as in the released weights, and take no part in training.
    """

    def __init__(self, shape: DitShape) -> None:
        super().__init__(shape)
        self.attention = AnswerAttention(shape)
        prompt = self.attention.prompt
        for layer in (prompt.query, prompt.query_norm, prompt.out, self.prompt_feed_forward):
            layer.requires_grad_(False)

    def forward(self, prompt: Tensor, answer: Tensor, modulation: Tensor, rotation: Rotation) -> Tensor:  # type: ignore[override]
        """Shapes: prompt `(b, p, d)`, answer `(b, a, d)`, modulation `(b or 1, 8d)`, to the answer's."""
        prompt_attention, _, answer_attention, answer_mlp = split_modulation(modulation)
        attended = self.attention(prompt_attention.enter(prompt), answer_attention.enter(answer), rotation)
        answer = answer_attention.leave(answer, attended)
        return answer_mlp.leave(answer, self.answer_feed_forward(answer_mlp.enter(answer)))


def split_modulation(rows: Tensor) -> tuple[Modulation, Modulation, Modulation, Modulation]:
    """Rows `(b or 1, 8d)` as prompt attention, prompt feed-forward, answer attention, answer feed-forward."""
    parts = rows[:, None].chunk(2 * MODULATIONS_PER_SIDE, dim=-1)
    return Modulation(*parts[0:2]), Modulation(*parts[2:4]), Modulation(*parts[4:6]), Modulation(*parts[6:8])


class Embedder(nn.Sequential):
    """Patches of latents to tokens: `(b, l, 64)` to `(b, l, d)`."""

    def __init__(self, patch_dim: int, dim: int) -> None:
        super().__init__(nn.Linear(patch_dim, dim), nn.LayerNorm(dim, eps=1e-5))


class FinalLayer(nn.Module):
    """RMS norm, scaled by the time, and the projection back to patches."""

    def __init__(self, dim: int, patch_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, dim)
        self.linear = nn.Linear(dim, patch_dim)

    def scale(self, time_embedding: Tensor) -> Tensor:
        """Shapes: `(s, d)` to the same."""
        return self.modulation(F.silu(time_embedding))  # type: ignore[no-any-return]

    def forward(self, answer: Tensor, scale: Tensor) -> Tensor:
        return self.linear(rms_norm(answer) * (1.0 + scale[:, None]))  # type: ignore[no-any-return]
