"""The spatial-temporal VAE: 4x8x8 compression, causal in time. Source: LaVin-DiT, section 3.2."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavin_dit.presets import LATENT_CHANNELS, NUM_TIME_STAGES, PIXEL_CHANNELS, VaeShape
from lavin_dit.vae.blocks import MakeNorm, Norm, ResidualBlock, SpatialNorm
from lavin_dit.vae.convolutions import CausalConv3d, Downsample, Upsample

LOGVAR_RANGE = (-30.0, 20.0)
INITIAL_LOGVAR = -8.0


@dataclass(frozen=True)
class Moments:
    """A diagonal Gaussian over latents. Shapes: both `(b, z, f, y, x)`."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The reparametrised draw that `noise`, standard normal and shaped like the mean, selects."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """Divergence from the standard normal in nats, averaged over the batch, summed over the latent."""
        return self.kl_by_value().flatten(1).sum(dim=1).mean()

    def kl_by_value(self) -> Tensor:
        """Divergence of each latent value from the standard normal in nats. Shapes: as the mean."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar)


class EncoderStage(nn.Module):
    """Residual blocks, then a downsampler in all stages but the last."""

    def __init__(self, index: int, shape: VaeShape) -> None:
        super().__init__()
        width_in, width = shape.widths[max(index - 1, 0)], shape.widths[index]
        inputs = [width_in] + [width] * (shape.encoder_blocks - 1)
        self.blocks = nn.ModuleList(ResidualBlock(i, width, lambda c: Norm(c, shape.norm_groups)) for i in inputs)
        is_last = index == len(shape.widths) - 1
        self.downsample = nn.Identity() if is_last else Downsample(width, halves_time=index < NUM_TIME_STAGES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Pixels `(b, 3, t, h, w)` to moments `(b, 2z, f, y, x)`."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        first, last = shape.widths[0], shape.widths[-1]
        self.conv_in = CausalConv3d(PIXEL_CHANNELS, first)
        self.stages = nn.ModuleList(EncoderStage(index, shape) for index in range(len(shape.widths)))
        self.middle = nn.ModuleList(ResidualBlock(last, last, lambda c: Norm(c, shape.norm_groups)) for _ in range(shape.middle_blocks))
        self.norm_out = Norm(last, shape.norm_groups)
        self.conv_out = CausalConv3d(last, 2 * LATENT_CHANNELS)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for layer in (*self.stages, *self.middle):
            x = layer(x)
        return self.conv_out(F.silu(self.norm_out(x)))  # type: ignore[no-any-return]


class DecoderStage(nn.Module):
    """Residual blocks that see the latent, then an upsampler in all stages but the last."""

    def __init__(self, index: int, shape: VaeShape) -> None:
        super().__init__()
        widths = shape.widths[::-1]
        width_in, width = widths[max(index - 1, 0)], widths[index]
        inputs = [width_in] + [width] * (shape.decoder_blocks - 1)
        self.blocks = nn.ModuleList(ResidualBlock(i, width, _spatial_norm(shape)) for i in inputs)
        is_last = index == len(widths) - 1
        self.upsample = nn.Identity() if is_last else Upsample(width, doubles_time=index < NUM_TIME_STAGES)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, latent)
        return self.upsample(x)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latents `(b, z, f, y, x)` to pixels `(b, 3, t, h, w)`."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        make_norm = _spatial_norm(shape)
        first, last = shape.widths[-1], shape.widths[0]
        self.conv_in = CausalConv3d(LATENT_CHANNELS, first)
        self.middle = nn.ModuleList(ResidualBlock(first, first, make_norm) for _ in range(shape.middle_blocks))
        self.stages = nn.ModuleList(DecoderStage(index, shape) for index in range(len(shape.widths)))
        self.norm_out = make_norm(last)
        self.conv_out = CausalConv3d(last, PIXEL_CHANNELS)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.conv_in(latent)
        for layer in (*self.middle, *self.stages):
            x = layer(x, latent)
        return self.conv_out(F.silu(self.norm_out(x, latent)))  # type: ignore[no-any-return]


class STVae(nn.Module):
    """The ST-VAE. Its convolutions are causal; its GroupNorms pool over time too, as in the released weights."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What training needs, in one call: the reconstruction from a posterior draw, and the posterior's mean and logvar.

        Shapes: pixels `(b, 3, t, h, w)`, noise `(b, z, f, y, x)`, to pixels and twice the latents.
        """
        moments = self.encode(pixels)
        # Copies, since FSDP2 warns of views: its hook would be lost if somebody wrote into one.
        return self.decode(moments.sample(noise)).clone(), moments.mean.clone(), moments.logvar

    def encode(self, pixels: Tensor) -> Moments:
        """The posterior of clips.

        Shapes: `(b, 3, t, h, w)` in [-1, 1], t = 1 + 4k, h and w multiples of 8, to moments `(b, z, f, y, x)`.
        """
        mean, logvar = self.encoder(_channels_last(pixels)).chunk(2, dim=1)
        return Moments(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of latents. Shapes: `(b, z, f, y, x)` to `(b, 3, t, h, w)`; not clamped to [-1, 1]."""
        return self.decoder(_channels_last(latents))  # type: ignore[no-any-return]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sets every weight: LeCun-normal convolutions, residual blocks and spatial norms that begin as next to nothing.

        Posteriors begin narrow: at unit variance the noise would drown the latents for the first hundreds of steps.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv2.weight)
            if isinstance(module, SpatialNorm):
                module.begin_as_group_norm()
        assert self.encoder.conv_out.bias is not None
        self.encoder.conv_out.bias[LATENT_CHANNELS:] = INITIAL_LOGVAR


def _channels_last(x: Tensor) -> Tensor:
    # Convolutions with few channels run several times faster in this layout on CPUs, and no slower on GPUs.
    return x.contiguous(memory_format=torch.channels_last_3d)


def _spatial_norm(shape: VaeShape) -> MakeNorm:
    return lambda channels: SpatialNorm(channels, LATENT_CHANNELS, shape.norm_groups)
