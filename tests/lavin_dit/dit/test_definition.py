"""A second J-DiT, written plainly from the definition and in the authors' names, compared with ours through the adapter."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavin_dit.adapter import dit_from_authors, dit_to_authors, load_authors_dit
from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DitShape

DEPTH, DIM, HEADS, KV_GROUP = 2, 96, 8, 4
SHAPE = DitShape(depth=DEPTH, dim=DIM, num_heads=HEADS, kv_group=KV_GROUP)
HEAD_DIM = DIM // HEADS
KV_DIM = HEAD_DIM * HEADS // KV_GROUP
HIDDEN = int((8 * DIM / 3) / 64) * 64
Weights = dict[str, Tensor]


def linear_sizes() -> dict[str, tuple[int, int]]:
    sizes = {"cond_embedder.0": (DIM, 64), "x_embedder.0": (DIM, 64), "t_embedder.mlp.0": (DIM, 256), "t_embedder.mlp.2": (DIM, DIM)}
    sizes |= {"final_layer.linear": (64, DIM), "final_layer.adaLN_modulation.1": (DIM, DIM)}
    return sizes | {f"blocks.{i}.{side}_modulation.1": (4 * DIM, DIM) for i in range(DEPTH) for side in ("cond", "x")}


def matrix_sizes(block: str, side: str) -> dict[str, tuple[int, ...]]:
    attention, mlp = f"{block}.joint_attn.{side}", f"{block}.{side}_mlp"
    sizes: dict[str, tuple[int, ...]] = {f"{attention}_q": (DIM, DIM), f"{attention}_k": (KV_DIM, DIM), f"{attention}_v": (KV_DIM, DIM)}
    sizes |= {f"{attention}_proj": (DIM, DIM), f"{attention}_qnorm": (DIM,), f"{attention}_knorm": (KV_DIM,)}
    return sizes | {f"{mlp}.gate_proj": (HIDDEN, DIM), f"{mlp}.up_proj": (HIDDEN, DIM), f"{mlp}.down_proj": (DIM, HIDDEN)}


@pytest.fixture(scope="module")
def weights() -> Weights:
    random = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, dtype=torch.float64)

    made = {"prompt_embed": draw(1, DIM), "answer_embed": draw(1, DIM)}
    for name, size in linear_sizes().items():
        made |= {f"{name}.weight": draw(*size) / size[1] ** 0.5, f"{name}.bias": 0.3 * draw(size[0])}
    for name in ("cond_embedder.1", "x_embedder.1"):
        made |= {f"{name}.weight": 1 + 0.3 * draw(DIM), f"{name}.bias": 0.3 * draw(DIM)}
    for i in range(DEPTH):
        for side in ("cond", "x"):
            for name, size in matrix_sizes(f"blocks.{i}", side).items():
                made[f"{name}.weight"] = draw(*size) / size[1] ** 0.5 if len(size) == 2 else 1 + 0.3 * draw(*size)
    return made


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def rms(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + 1e-6)


def layer_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def tokens_of(latents: Tensor) -> Tensor:
    """One sample `(16, f, y, x)`: a token for each frame, row and column of 2x2 patches, its values in (ph pw c) order."""
    _, frames, height, width = latents.shape
    return torch.stack(
        [
            torch.cat([latents[:, f, 2 * y + ph, 2 * x + pw] for ph in range(2) for pw in range(2)])
            for f in range(frames)
            for y in range(height // 2)
            for x in range(width // 2)
        ]
    )


def latents_of(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    latents, remaining = torch.zeros(size, dtype=tokens.dtype), iter(tokens)
    for f in range(size[1]):
        for y in range(size[2] // 2):
            for x in range(size[3] // 2):
                token = next(remaining)
                for ph in range(2):
                    for pw in range(2):
                        first = 16 * (2 * ph + pw)
                        latents[:, f, 2 * y + ph, 2 * x + pw] = token[first : first + 16]
    return latents


def turned(head: Tensor, position: tuple[int, int, int]) -> Tensor:
    """One head of one token, rotated by its frame, row and column."""
    part = HEAD_DIM // 3
    half, result = part // 2, torch.empty_like(head)
    for axis in range(3):
        for i in range(half):
            angle = position[axis] * 10000 ** (-2 * i / part)
            a, b = axis * part + i, axis * part + i + half
            result[a] = head[a] * math.cos(angle) - head[b] * math.sin(angle)
            result[b] = head[b] * math.cos(angle) + head[a] * math.sin(angle)
    return result


def joint_attention(sides: dict[str, Tensor], w: Weights, name: str, positions: list[tuple[int, int, int]]) -> dict[str, Tensor]:
    query = torch.cat([rms(linear(x, w, f"{name}.{side}_q")) * w[f"{name}.{side}_qnorm.weight"] for side, x in sides.items()])
    key = torch.cat([rms(linear(x, w, f"{name}.{side}_k")) * w[f"{name}.{side}_knorm.weight"] for side, x in sides.items()])
    value = torch.cat([linear(x, w, f"{name}.{side}_v") for side, x in sides.items()])
    outputs = []
    for head in range(HEADS):
        own, shared = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM), head // KV_GROUP
        seen = slice(shared * HEAD_DIM, (shared + 1) * HEAD_DIM)
        q = torch.stack([turned(token, place) for token, place in zip(query[:, own], positions, strict=True)])
        k = torch.stack([turned(token, place) for token, place in zip(key[:, seen], positions, strict=True)])
        outputs.append(torch.softmax(q @ k.T / HEAD_DIM**0.5, dim=-1) @ value[:, seen])
    joined = torch.cat(outputs, dim=1)
    num_prompt = len(sides["cond"])
    split = {"cond": joined[:num_prompt], "x": joined[num_prompt:]}
    return {side: linear(x, w, f"{name}.{side}_proj") for side, x in split.items()}


def feed_forward(x: Tensor, w: Weights, name: str) -> Tensor:
    return linear(silu(linear(x, w, f"{name}.gate_proj")) * linear(x, w, f"{name}.up_proj"), w, f"{name}.down_proj")


def block(sides: dict[str, Tensor], embeddings: dict[str, Tensor], w: Weights, name: str, positions: list[tuple[int, int, int]]) -> dict:
    parts = {side: linear(silu(embeddings[side]), w, f"{name}.{side}_modulation.1").chunk(4) for side in sides}
    entered = {side: rms(x) * (1 + parts[side][0]) for side, x in sides.items()}
    attended = joint_attention(entered, w, f"{name}.joint_attn", positions)
    sides = {side: x + torch.tanh(parts[side][1]) * rms(attended[side]) for side, x in sides.items()}
    fed = {side: feed_forward(rms(x) * (1 + parts[side][2]), w, f"{name}.{side}_mlp") for side, x in sides.items()}
    return {side: x + torch.tanh(parts[side][3]) * rms(fed[side]) for side, x in sides.items()}


def velocity_of_one(answer: Tensor, prompt: Tensor, time: float, w: Weights) -> Tensor:
    """One sample; answer and prompt `(16, f, y, x)`."""
    angles = torch.tensor([time * math.exp(-math.log(10000) * i / 128) for i in range(128)], dtype=torch.float64)
    sinusoids = torch.cat([torch.cos(angles), torch.sin(angles)])
    embedding = linear(silu(linear(sinusoids, w, "t_embedder.mlp.0")), w, "t_embedder.mlp.2")
    embeddings = {"cond": embedding + w["prompt_embed"][0], "x": embedding + w["answer_embed"][0]}
    sides = {
        side: layer_norm(linear(tokens_of(latents), w, f"{side}_embedder.0"), w, f"{side}_embedder.1")
        for side, latents in (("cond", prompt), ("x", answer))
    }
    rows, columns = answer.shape[2] // 2, answer.shape[3] // 2
    frames = prompt.shape[1] + answer.shape[1]
    positions = [(f, y, x) for f in range(frames) for y in range(rows) for x in range(columns)]
    for i in range(DEPTH):
        sides = block(sides, embeddings, w, f"blocks.{i}", positions)
    scale = linear(silu(embedding), w, "final_layer.adaLN_modulation.1")
    return latents_of(linear(rms(sides["x"]) * (1 + scale), w, "final_layer.linear"), tuple(answer.shape))


def velocity(answer: Tensor, prompt: Tensor, time: Tensor, w: Weights) -> Tensor:
    return torch.stack([velocity_of_one(a, p, float(t), w) for a, p, t in zip(answer, prompt, time, strict=True)])


def draw(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture(scope="module")
def ours(weights: Weights) -> JDit:
    dit = JDit(SHAPE).double()
    dit.load_state_dict(dit_from_authors(weights), strict=True)
    return dit.requires_grad_(False)


@pytest.mark.parametrize(("prompt_frames", "answer_frames"), [(2, 1), (5, 1), (3, 2)])
def test_the_velocity_is_the_defined_one(ours: JDit, weights: Weights, prompt_frames: int, answer_frames: int) -> None:
    answer, prompt = draw(2, 16, answer_frames, 4, 6, seed=1), draw(2, 16, prompt_frames, 4, 6, seed=2)
    time = torch.tensor([0.3, 0.85], dtype=torch.float64)
    # Sinusoids and rotary angles are single precision by design: that is the tolerance.
    assert relative_error(ours(answer, prompt, time), velocity(answer, prompt, time, weights)) < 1e-6


def test_a_file_of_the_authors_gives_their_outputs_in_float32(weights: Weights, tmp_path: Path) -> None:
    save_file({name: tensor.float() for name, tensor in weights.items()}, tmp_path / "lavin_dit.safetensors")
    dit = load_authors_dit(tmp_path / "lavin_dit.safetensors", SHAPE)
    answer, prompt, time = draw(1, 16, 1, 4, 4, seed=1), draw(1, 16, 3, 4, 4, seed=2), torch.tensor([0.5], dtype=torch.float64)
    predicted = dit(answer.float(), prompt.float(), time.float()).double()
    assert relative_error(predicted, velocity(answer, prompt, time, weights)) < 1e-5
    assert not dit.training


def test_our_weights_go_back_under_the_authors_names(ours: JDit, weights: Weights) -> None:
    theirs = dit_to_authors(ours.state_dict())
    assert theirs.keys() == weights.keys()
    assert all(torch.equal(theirs[name], weights[name]) for name in weights)
