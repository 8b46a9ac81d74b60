"""The layers of an ST-VAE and the sizes of what passes through them, from its shape alone. Never imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lavin_dit.presets import LATENT_CHANNELS, NUM_TIME_STAGES, PIXEL_CHANNELS, VaeShape, latent_shape

NUM_HALVINGS = 3
FRAME_TAPS = 9
CAUSAL_TAPS = 27


@dataclass(frozen=True)
class Volume:
    """The size of a feature map."""

    frames: int
    height: int
    width: int

    @property
    def size(self) -> int:
        return self.frames * self.height * self.width

    def halved(self, *, in_time: bool) -> "Volume":
        """As a downsampler leaves it."""
        return Volume((self.frames + 1) // 2 if in_time else self.frames, self.height // 2, self.width // 2)

    def doubled(self, *, in_time: bool) -> "Volume":
        """As an upsampler leaves it: the first frame is not repeated."""
        return Volume(2 * self.frames - 1 if in_time else self.frames, 2 * self.height, 2 * self.width)


@dataclass(frozen=True)
class Convolution:
    """A convolution, and the feature map that it gives."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    volume: Volume

    def weights(self) -> Iterator[tuple[str, int]]:
        """Names and sizes."""
        yield f"{self.name}.weight", self.in_channels * self.kernel * self.out_channels
        yield f"{self.name}.bias", self.out_channels

    @property
    def flops(self) -> int:
        # With one frame a causal kernel is summed over time and applied in 2D.
        taps = FRAME_TAPS if self.kernel == CAUSAL_TAPS and self.volume.frames == 1 else self.kernel
        return 2 * self.in_channels * self.out_channels * taps * self.volume.size


@dataclass(frozen=True)
class Norm:
    """A GroupNorm; the decoder's is also scaled and shifted by the latent, through two 1x1x1 convolutions."""

    name: str
    channels: int
    latent: Volume | None

    def convolutions(self) -> Iterator[Convolution]:
        if self.latent:
            for which in ("scale", "shift"):
                yield Convolution(f"{self.name}.{which}", LATENT_CHANNELS, self.channels, 1, self.latent)

    def weights(self) -> Iterator[tuple[str, int]]:
        """Names and sizes."""
        norm = f"{self.name}.norm" if self.latent else self.name
        yield f"{norm}.weight", self.channels
        yield f"{norm}.bias", self.channels
        for convolution in self.convolutions():
            yield from convolution.weights()


@dataclass(frozen=True)
class Residual:
    """A residual block on feature maps of one size."""

    name: str
    in_channels: int
    out_channels: int
    volume: Volume
    latent: Volume | None

    def norms(self) -> tuple[Norm, Norm]:
        return Norm(f"{self.name}.norm1", self.in_channels, self.latent), Norm(f"{self.name}.norm2", self.out_channels, self.latent)

    def convolutions(self) -> Iterator[Convolution]:
        yield Convolution(f"{self.name}.conv1", self.in_channels, self.out_channels, CAUSAL_TAPS, self.volume)
        yield Convolution(f"{self.name}.conv2", self.out_channels, self.out_channels, CAUSAL_TAPS, self.volume)
        if self.in_channels != self.out_channels:
            yield Convolution(f"{self.name}.shortcut", self.in_channels, self.out_channels, 1, self.volume)


@dataclass(frozen=True)
class Resampling:
    """A change of resolution and the convolution of every frame that belongs to it."""

    name: str
    channels: int
    before: Volume
    after: Volume

    def norms(self) -> tuple[Norm, ...]:
        return ()

    def convolutions(self) -> Iterator[Convolution]:
        yield Convolution(f"{self.name}.conv", self.channels, self.channels, FRAME_TAPS, self.after)


@dataclass(frozen=True)
class Stem:
    """The first convolution."""

    name: str
    in_channels: int
    out_channels: int
    volume: Volume

    def norms(self) -> tuple[Norm, ...]:
        return ()

    def convolutions(self) -> Iterator[Convolution]:
        yield Convolution(f"{self.name}.conv_in", self.in_channels, self.out_channels, CAUSAL_TAPS, self.volume)


@dataclass(frozen=True)
class Head:
    """The last norm and convolution."""

    name: str
    in_channels: int
    out_channels: int
    volume: Volume
    latent: Volume | None

    def norms(self) -> tuple[Norm]:
        return (Norm(f"{self.name}.norm_out", self.in_channels, self.latent),)

    def convolutions(self) -> Iterator[Convolution]:
        yield Convolution(f"{self.name}.conv_out", self.in_channels, self.out_channels, CAUSAL_TAPS, self.volume)


Layer = Stem | Residual | Resampling | Head


def vae_layers(shape: VaeShape, pixels: Volume) -> tuple[Layer, ...]:
    """From pixels to moments, and from latents to pixels, in the order of computation."""
    return (*encoder_layers(shape, pixels), *decoder_layers(shape, pixels))


def encoder_layers(shape: VaeShape, pixels: Volume) -> Iterator[Layer]:
    """From pixels to moments, in the order of computation."""
    volumes = [pixels]
    for index in range(NUM_HALVINGS):
        volumes.append(volumes[-1].halved(in_time=index < NUM_TIME_STAGES))
    yield Stem("encoder", PIXEL_CHANNELS, shape.widths[0], pixels)
    for index, (width, volume) in enumerate(zip(shape.widths, volumes, strict=True)):
        stage, width_in = f"encoder.stages.{index}", shape.widths[max(index - 1, 0)]
        yield from _residuals(f"{stage}.blocks", width_in, width, shape.encoder_blocks, volume, None)
        if index + 1 < len(volumes):
            yield Resampling(f"{stage}.downsample", width, volume, volumes[index + 1])
    last = shape.widths[-1]
    yield from _residuals("encoder.middle", last, last, shape.middle_blocks, volumes[-1], None)
    yield Head("encoder", last, 2 * LATENT_CHANNELS, volumes[-1], None)


def decoder_layers(shape: VaeShape, pixels: Volume) -> Iterator[Layer]:
    """From latents to pixels, in the order of computation."""
    latent, widths = latent_volume(pixels), shape.widths[::-1]
    volumes = [latent]
    for index in range(NUM_HALVINGS):
        volumes.append(volumes[-1].doubled(in_time=index < NUM_TIME_STAGES))
    yield Stem("decoder", LATENT_CHANNELS, widths[0], latent)
    yield from _residuals("decoder.middle", widths[0], widths[0], shape.middle_blocks, latent, latent)
    for index, (width, volume) in enumerate(zip(widths, volumes, strict=True)):
        stage, width_in = f"decoder.stages.{index}", widths[max(index - 1, 0)]
        yield from _residuals(f"{stage}.blocks", width_in, width, shape.decoder_blocks, volume, latent)
        if index + 1 < len(volumes):
            yield Resampling(f"{stage}.upsample", width, volume, volumes[index + 1])
    yield Head("decoder", widths[-1], PIXEL_CHANNELS, pixels, latent)


def layer_weights(layer: Layer) -> Iterator[tuple[str, int]]:
    """Names and sizes of a layer's weights, its norms' included."""
    parts: tuple[Norm | Convolution, ...] = (*layer.norms(), *layer.convolutions())
    for part in parts:
        yield from part.weights()


def recomputed_flops(layer: Layer) -> int:
    """Operations that full checkpointing makes again: those of residual blocks, up to the last tensor that the backward pass reads."""
    if not isinstance(layer, Residual):
        return 0
    first, second, *shortcut = layer.convolutions()
    scaling = (convolution for norm in layer.norms() for convolution in norm.convolutions())
    # The result of the second convolution is not read: it is made again only on the way to what a shortcut reads.
    return first.flops + (second.flops if shortcut else 0) + sum(convolution.flops for convolution in scaling)


def latent_volume(pixels: Volume) -> Volume:
    """The latents of a clip."""
    return Volume(*latent_shape(pixels.frames, pixels.height, pixels.width)[1:])


def layer_flops(layer: Layer) -> int:
    """Operations of a layer's forward pass on one sample."""
    scaling = (convolution for norm in layer.norms() for convolution in norm.convolutions())
    return sum(convolution.flops for convolution in (*layer.convolutions(), *scaling))


def _residuals(name: str, width_in: int, width: int, count: int, volume: Volume, latent: Volume | None) -> Iterator[Residual]:
    for index, (before, after) in enumerate(pairwise([width_in] + [width] * count)):
        yield Residual(f"{name}.{index}", before, after, volume, latent)
