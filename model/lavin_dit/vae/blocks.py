"""Norms and residual blocks of the ST-VAE."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavin_dit.vae.convolutions import CausalConv3d, PointwiseConv3d

NORM_EPS = 1e-6


class GroupNorm(nn.GroupNorm):
    """PyTorch's, whose backward pass crashes on CPUs where all before it is frozen and channels are last (2.13): scaled apart there."""

    def forward(self, x: Tensor) -> Tensor:
        learns = torch.is_grad_enabled() and (self.weight.requires_grad or self.bias.requires_grad)
        if x.requires_grad or not learns:
            return super().forward(x)
        weight, bias = (values.view(-1, *[1] * (x.ndim - 2)) for values in (self.weight, self.bias))
        return torch.addcmul(bias, F.group_norm(x, self.num_groups, eps=self.eps), weight)


class Norm(GroupNorm):
    """The encoder's; takes the latent that the decoder's norm needs, and does not look at it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(groups, channels, eps=NORM_EPS)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:  # noqa: ARG002 - one signature for both norms
        return super().forward(x)


class SpatialNorm(nn.Module):
    """The decoder's norm: GroupNorm, scaled and shifted at every place by the latent that is being decoded.

    The definition resizes the latent and then applies the 1x1x1 convolutions; nearest resizing only repeats values, so
    convolving first gives the same numbers with up to 64 times less work.
    """

    def __init__(self, channels: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=NORM_EPS)
        self.scale = PointwiseConv3d(latent_channels, channels)
        self.shift = PointwiseConv3d(latent_channels, channels)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3], x.shape[4])
        return self.norm(x) * resize_latent(self.scale(latent), size) + resize_latent(self.shift(latent), size)  # type: ignore[no-any-return]

    @torch.no_grad()
    def begin_as_group_norm(self) -> None:
        """Scales close to 1 and shifts close to 0, wherever and whatever the latent."""
        self.scale.weight.mul_(0.1)
        self.shift.weight.mul_(0.1)
        assert self.scale.bias is not None
        self.scale.bias.fill_(1.0)


def resize_latent(latent: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Nearest resize to `(t, h, w)`; an odd number of frames above 1 resizes the first frame and the rest apart.

    Shapes: `(b, c, f, y, x)` to `(b, c, t, h, w)`.
    """
    if latent.shape[2] == 1 and size[0] == 1:
        return F.interpolate(latent.squeeze(2), size=size[1:], mode="nearest").unsqueeze(2)
    if size[0] > 1 and size[0] % 2 == 1:
        first = F.interpolate(latent[:, :, :1], size=(1, size[1], size[2]), mode="nearest")
        rest = F.interpolate(latent[:, :, 1:], size=(size[0] - 1, size[1], size[2]), mode="nearest")
        return torch.cat([first, rest], dim=2)
    return F.interpolate(latent, size=size, mode="nearest")


MakeNorm = Callable[[int], nn.Module]


class ResidualBlock(nn.Module):
    """norm, SiLU, causal convolution, twice, plus the input (through a 1x1x1 convolution where widths differ)."""

    def __init__(self, in_channels: int, out_channels: int, make_norm: MakeNorm) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = make_norm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.shortcut = PointwiseConv3d(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x, latent)))
        y = self.conv2(F.silu(self.norm2(y, latent)))
        return self.shortcut(x) + y  # type: ignore[no-any-return]
