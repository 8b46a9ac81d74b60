"""In-context inference: example pairs and a query become a prompt, the answer is sampled and decoded. An image is a clip of one frame."""

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from lavin_dit.config import SamplingConfig
from lavin_dit.dit.j_dit import JDit, TimeTable
from lavin_dit.flow import euler
from lavin_dit.sampling import time_grid
from lavin_dit.weights import TrainedVae


def to_model(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels `(h, w, 3)` or `(t, h, w, 3)` in 0..255 to `(3, h, w)` or `(3, t, h, w)` in [-1, 1]."""
    return torch.tensor(pixels).movedim(-1, 0).float() / 127.5 - 1.0


def to_pixels(values: Tensor) -> NDArray[np.uint8]:
    """`(3, h, w)` or `(3, t, h, w)` in [-1, 1] to pixels `(h, w, 3)` or `(t, h, w, 3)`: clamped and rounded."""
    scaled = (values.clamp(-1.0, 1.0) + 1.0) * 127.5
    return scaled.round().to(torch.uint8).movedim(0, -1).numpy()


def encode_clips(vae: TrainedVae, clips: Tensor) -> Tensor:
    """Normalised latents. Shapes: `(b, c, t, h, w)` to `(b, z, f, y, x)`."""
    return vae.statistics.normalise(vae.module.encode(clips).mean)


def decode_clips(vae: TrainedVae, latents: Tensor) -> Tensor:
    """Clips of normalised latents. Shapes: `(b, z, f, y, x)` to `(b, c, t, h, w)`."""
    return vae.module.decode(vae.statistics.restore(latents))


def encode_images(vae: TrainedVae, images: Tensor) -> Tensor:
    """Normalised latents, every image on its own. Shapes: `(b, c, h, w)` to `(b, z, y, x)`."""
    return encode_clips(vae, images[:, :, None])[:, :, 0]


def decode_images(vae: TrainedVae, latents: Tensor) -> Tensor:
    """Images of normalised latents. Shapes: `(b, z, y, x)` to `(b, c, h, w)`."""
    return decode_clips(vae, latents[:, :, None])[:, :, 0]


def assemble_prompt(inputs: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """`in1, out1, in2, out2, ..., query`, an image as one frame and a clip as f.

    Shapes: inputs and targets `(b, n, z, f, y, x)`, query `(b, z, f, y, x)`, to `(b, z, (2n + 1) f, y, x)`.
    """
    pairs = rearrange([inputs, targets], "pair b n z f y x -> b z (n pair f) y x")
    return torch.cat([pairs, query], dim=2)


def drop_prompt(prompt: Tensor, *, num_frames: int) -> Tensor:
    """The prompt of classifier-free guidance: one zero frame, then the query, which is the last `num_frames` frames.

    Shapes: `(b, z, f', y, x)` to `(b, z, 1 + f, y, x)`.
    """
    query = prompt[:, :, -num_frames:]
    return torch.cat([torch.zeros_like(query[:, :, :1]), query], dim=2)


def sample_answer(dit: JDit, prompt: Tensor, *, noise: Tensor, num_points: int, guidance_scale: float) -> Tensor:
    """Solves the flow from noise to an answer; the modulations are worked out once for the whole grid.

    Shapes: prompt `(b, z, f', y, x)`, noise `(b, z, f, y, x)`, to `(b, z, f, y, x)`.
    """
    times = torch.from_numpy(time_grid(num_points)[:-1]).float().to(noise.device)
    table = dit.time_table(times)
    dropped = drop_prompt(prompt, num_frames=noise.shape[2])

    def velocity(z: Tensor, index: int) -> Tensor:
        row = TimeTable(table.blocks[index : index + 1], table.final[index : index + 1])
        guided = dit.forward_tabled(z, prompt, row)
        if guidance_scale == 1.0:
            return guided
        free = dit.forward_tabled(z, dropped, row)
        return free + guidance_scale * (guided - free)

    return euler(velocity, noise, num_points=num_points)


def encode_prompt(vae: TrainedVae, *, context_inputs: Tensor, context_targets: Tensor, queries: Tensor) -> Tensor:
    """The prompt of queries, each with its own context pairs; without any, the dropped prompt.

    Shapes: contexts `(b, n, c, t, h, w)`, queries `(b, c, t, h, w)`, to `(b, z, (2n + 1) f, y, x)`, or `(b, z, 1 + f, y, x)` where n is 0.
    """
    batch, num_pairs = context_inputs.shape[:2]
    if num_pairs == 0:
        latents = encode_clips(vae, queries)
        return drop_prompt(latents, num_frames=latents.shape[2])
    clips = torch.cat([context_inputs.flatten(0, 1), context_targets.flatten(0, 1), queries])
    inputs, targets, query = encode_clips(vae, clips).split([batch * num_pairs, batch * num_pairs, batch])  # type: ignore[no-untyped-call]
    inputs, targets = (rearrange(part, "(b n) z f y x -> b n z f y x", b=batch) for part in (inputs, targets))
    return assemble_prompt(inputs, targets, query)


@torch.no_grad()
def predict(
    vae: TrainedVae,
    dit: JDit,
    *,
    context_inputs: Tensor,
    context_targets: Tensor,
    queries: Tensor,
    noise: Tensor,
    sampling: SamplingConfig,
) -> Tensor:
    """Answers to queries, each shown its own context pairs, or none.

    Shapes: contexts `(b, n, c, t, h, w)`, queries `(b, c, t, h, w)`, noise `(b, z, f, y, x)`, to `(b, c, t, h, w)` in about [-1, 1].
    """
    prompt = encode_prompt(vae, context_inputs=context_inputs, context_targets=context_targets, queries=queries)
    answer = sample_answer(dit, prompt, noise=noise, num_points=sampling.num_points, guidance_scale=sampling.guidance_scale)
    return decode_clips(vae, answer)
