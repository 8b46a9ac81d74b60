"""Convolutions of the ST-VAE, causal in time, with the exact shortcut for a single frame."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConv3d(nn.Conv3d):
    """A 3x3x3 convolution that sees no later frame: time is padded in front by repeating the first frame, space by zeros.

    With one frame all three temporal taps see that frame, so the kernel summed over time, applied in 2D, gives the
    same result for a third of the arithmetic.

    Shapes: `(b, c, t, h, w)` to `(b, c', t, h, w)`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return F.conv2d(x.squeeze(2), self.weight.sum(dim=2), self.bias, padding=1).unsqueeze(2)
        return self.forward_unfolded(x)

    def forward_unfolded(self, x: Tensor) -> Tensor:
        """The definition itself, for any number of frames."""
        past = x[:, :, :1].expand(-1, -1, 2, -1, -1)
        return F.conv3d(torch.cat([past, x], dim=2), self.weight, self.bias, padding=(0, 1, 1))


class PointwiseConv3d(nn.Conv3d):
    """A 1x1x1 convolution; in 2D where there is one frame, which is the same and faster."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return F.conv2d(x.squeeze(2), self.weight.squeeze(2), self.bias).unsqueeze(2)
        return super().forward(x)


class FrameConv2d(nn.Conv2d):
    """A 2D convolution applied to every frame on its own. Shapes: `(b, c, t, h, w)` to `(b, c', t, h', w')`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return super().forward(x.squeeze(2)).unsqueeze(2)
        frames = super().forward(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(frames, "(b t) c h w -> b c t h w", b=x.shape[0])


class Downsample(nn.Module):
    """Halves space, and time as well where asked: frame pairs are averaged, an odd first frame is kept alone."""

    def __init__(self, channels: int, *, halves_time: bool) -> None:
        super().__init__()
        self.halves_time = halves_time
        self.conv = FrameConv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.halves_time:
            x = halve_time(x)
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]  # b c t h/2 w/2


class Upsample(nn.Module):
    """Doubles space by nearest neighbour, and time as well where asked, for all frames but the first."""

    def __init__(self, channels: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.doubles_time = doubles_time
        self.conv = FrameConv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.doubles_time:
            x = double_time(x)
        return self.conv(double_space(x))  # type: ignore[no-any-return]  # b c t' 2h 2w


def halve_time(x: Tensor) -> Tensor:
    """Averages frame pairs; an odd number of frames keeps its first frame alone, one frame is unchanged."""
    if x.shape[2] == 1:
        return x
    first, rest = x[:, :, : x.shape[2] % 2], x[:, :, x.shape[2] % 2 :]
    pooled = F.avg_pool3d(rest, kernel_size=(2, 1, 1), stride=(2, 1, 1))
    return torch.cat([first, pooled], dim=2)


def double_time(x: Tensor) -> Tensor:
    """Repeats every frame but the first."""
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(2, dim=2)], dim=2)


def double_space(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling of height and width."""
    if x.shape[2] == 1:
        return F.interpolate(x.squeeze(2), scale_factor=2.0, mode="nearest").unsqueeze(2)
    return F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
