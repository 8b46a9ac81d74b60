"""Rotary position embedding over three axes: frame, row, column. Source: LaVin-DiT, section 3.3."""

from dataclasses import dataclass
from typing import Self

import torch
from einops import rearrange
from torch import Tensor

BASE = 10_000.0
NUM_AXES = 3


@dataclass(frozen=True)
class Rotation:
    """Angles of every token as cosines and sines. Shapes: both `(l, 3, e/6)`: token, axis, pair."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of_grid(cls, frames: int, rows: int, columns: int, head_dim: int, *, device: torch.device) -> Self:
        """Rotations of a token grid in `(f y x)` order; positions are integer token coordinates."""
        axes = [torch.arange(size, device=device, dtype=torch.float32) for size in (frames, rows, columns)]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)  # l 3
        num_pairs = head_dim // (2 * NUM_AXES)
        frequencies = BASE ** -(torch.arange(num_pairs, device=device, dtype=torch.float32) / num_pairs)
        angles = positions[:, :, None] * frequencies
        return cls(angles.cos(), angles.sin())

    def after(self, count: int) -> Self:
        """The rotations of all tokens but the first `count`."""
        return type(self)(self.cos[count:], self.sin[count:])


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates queries or keys; in each axis's third of a head, value i pairs with value i + e/6.

    Shapes: `(b, n, l, e)` to the same.
    """
    first, second = rearrange(x, "b n l (part half pair) -> half b n l part pair", part=NUM_AXES, half=2)
    cos, sin = rotation.cos.to(x.dtype), rotation.sin.to(x.dtype)
    rotated = torch.stack([first * cos - second * sin, second * cos + first * sin])
    return rearrange(rotated, "half b n l part pair -> b n l (part half pair)")
