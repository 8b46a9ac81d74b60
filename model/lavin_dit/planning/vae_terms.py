"""The networks that only judge the ST-VAE's reconstructions, the discriminator and VGG16: weights, operations, memory. Never imports torch.

The lists follow vae/discriminator.py, vae/vgg.py and vae/perceptual.py; tests hold them against those.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lavin_dit.planning.dit_activations import FLOAT32
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.presets import MAX_WIDENING, PIXEL_CHANNELS, VGG_STAGES
from lavin_dit.training_config import AdversarialConfig, TrainVaeConfig

DUEL_FORWARDS = 7.0
"""What `fight` and its backward pass take, in its forwards: two, one for the pull, and two of each backward for the hinge loss."""
DUEL_PASSES = 2
"""Passes of the discriminator whose tensors are kept until the end."""
DISTANCE_FORWARDS = 3.0
"""What a perceptual distance and its gradient at the pixels take, in forwards of the features."""
HELD_COPIES = 3
"""Of the discriminator's weights: themselves and both moments."""
INDEX_BYTES = 8
DISTANCE_TENSORS = 3
"""Of each stage's features: what they should be, their unit-length version, and the difference."""
STRUCTURE_TENSORS = 74
"""Tensors of the pixels' size that multi-scale structural similarity keeps, all scales together, as measured."""


@dataclass(frozen=True)
class PatchLayer:
    """A convolution of the discriminator, and the feature map that it gives."""

    in_channels: int
    out_channels: int
    taps: int
    before: Volume
    after: Volume
    has_norm: bool

    @property
    def weights(self) -> int:
        norm = 2 * self.out_channels if self.has_norm else 0
        return (3 * self.taps * self.in_channels + 1) * self.out_channels + norm

    @property
    def flops(self) -> int:
        frames = 1 if self.before.frames == 1 else 3
        return 2 * frames * self.taps * self.in_channels * self.out_channels * self.after.size

    @property
    def kept(self) -> int:
        """What the convolution reads, and what its norm and its activation do. Units: bytes a sample."""
        readers = 2 if self.has_norm else 1
        return FLOAT32 * (self.in_channels * self.before.size + readers * self.out_channels * self.after.size)


def discriminator_layers(adversarial: AdversarialConfig, pixels: Volume) -> Iterator[PatchLayer]:
    """From pixels to scores, in the order of computation."""
    channels, volume = PIXEL_CHANNELS, pixels
    for index in range(adversarial.num_layers):
        wide = adversarial.width * min(2**index, MAX_WIDENING)
        frames = (volume.frames - 1) // 2 + 1 if index and volume.frames > 1 else volume.frames
        after = Volume(frames, (volume.height - 2) // 2 + 1, (volume.width - 2) // 2 + 1)
        yield PatchLayer(channels, wide, 16, volume, after, has_norm=index > 0)
        channels, volume = wide, after
    yield PatchLayer(channels, 1, 9, volume, volume, has_norm=False)


def discriminator_flops(adversarial: AdversarialConfig, pixels: Volume) -> float:
    """One pass of the discriminator over a picture or clip."""
    return float(sum(layer.flops for layer in discriminator_layers(adversarial, pixels)))


def vgg_flops(pixels: Volume) -> float:
    """One pass of VGG16's convolutions over every frame."""
    total, narrow = 0, PIXEL_CHANNELS
    for stage, (wide, count) in enumerate(VGG_STAGES):
        area = pixels.frames * (pixels.height >> stage) * (pixels.width >> stage)
        total, narrow = total + 2 * 9 * wide * (narrow + (count - 1) * wide) * area, wide
    return float(total)


def vgg_weights() -> int:
    """Weights of VGG16's convolutions."""
    channels = [PIXEL_CHANNELS, *(width for width, count in VGG_STAGES for _ in range(count))]
    return sum((9 * narrow + 1) * wide for narrow, wide in pairwise(channels))


def vgg_kept(pixels: Volume) -> int:
    """What a perceptual distance keeps for its gradient: activations, where pooling looked, differences. Units: bytes a sample."""
    total = 0
    for stage, (wide, count) in enumerate(VGG_STAGES):
        area = pixels.frames * (pixels.height >> stage) * (pixels.width >> stage)
        pooled = INDEX_BYTES * wide * area // 4 if stage + 1 < len(VGG_STAGES) else 0
        total += FLOAT32 * wide * area * (count + DISTANCE_TENSORS) + pooled
    return total


def terms_flops(config: TrainVaeConfig, pixels: Volume) -> float:
    """Operations of a sample's terms, forward and backward."""
    flops = 0.0
    if config.perceptual.weight and config.perceptual.features:
        flops += DISTANCE_FORWARDS * vgg_flops(pixels)
    if config.adversarial:
        flops += DUEL_FORWARDS * discriminator_flops(config.adversarial, pixels)
    return flops


@dataclass(frozen=True)
class Judges:
    """What judging takes. Units: bytes."""

    held: int
    """From step to step: VGG16's weights; the discriminator's, and both moments, on every GPU."""
    gradients: int
    """The discriminator's."""
    largest_gradient: int
    """That of its largest weight, which is there twice while it is added to an earlier micro-batch's."""
    distance: int
    """Kept by the perceptual term until it has said what it wants at the pixels."""
    duel: int
    """Kept by the discriminator until its own gradients are there."""


def judges_of(config: TrainVaeConfig, pixels: Volume, samples: int) -> Judges:
    """Those of a loss, on so many samples at once."""
    features = vgg_weights() if config.perceptual.weight and config.perceptual.features else 0
    discriminator = discriminator_weights(config)
    return Judges(
        held=FLOAT32 * (features + HELD_COPIES * discriminator),
        gradients=FLOAT32 * discriminator,
        largest_gradient=FLOAT32 * max((layer.weights for layer in _discriminator_layers(config)), default=0),
        distance=samples * _distance_kept(config, pixels),
        duel=_duel_kept(config.adversarial, pixels, samples) if config.adversarial else 0,
    )


def _distance_kept(config: TrainVaeConfig, pixels: Volume) -> int:
    if not config.perceptual.weight:
        return 0
    return vgg_kept(pixels) if config.perceptual.features else STRUCTURE_TENSORS * PIXEL_CHANNELS * pixels.size * FLOAT32


def _duel_kept(adversarial: AdversarialConfig, pixels: Volume, samples: int) -> int:
    layers = list(discriminator_layers(adversarial, pixels))
    # Of the kernels, images alone take the middle taps.
    kernels = FLOAT32 * sum(layer.taps * layer.in_channels * layer.out_channels for layer in layers) if pixels.frames == 1 else 0
    return DUEL_PASSES * (samples * sum(layer.kept for layer in layers) + kernels)


def discriminator_weights(config: TrainVaeConfig) -> int:
    """Weights of the discriminator; 0 where there is none."""
    return sum(layer.weights for layer in _discriminator_layers(config))


def _discriminator_layers(config: TrainVaeConfig) -> list[PatchLayer]:
    smallest = Volume(1, 2**16, 2**16)
    return list(discriminator_layers(config.adversarial, smallest)) if config.adversarial else []
