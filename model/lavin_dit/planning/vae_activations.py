"""What the ST-VAE keeps of a forward pass for its backward pass, layer by layer. Never imports torch.

The lists follow vae/blocks.py and vae/convolutions.py line by line; tests hold them against what torch's allocator gives out.
"""

from dataclasses import dataclass
from functools import singledispatch

from lavin_dit.planning.dit_activations import FLOAT32, Arithmetic
from lavin_dit.planning.vae_layers import FRAME_TAPS, Head, Layer, Norm, Resampling, Residual, Stem, Volume
from lavin_dit.presets import PIXEL_CHANNELS

CAUSAL_PADDING = 2
"""Frames that a causal convolution puts before a clip."""
NUM_LOSS_TENSORS = 4
"""Tensors of the pixels' size around the loss: the reconstruction, its gradient, and what the two errors keep."""


@dataclass(frozen=True)
class LayerMemory:
    """What one layer holds. Units: bytes a sample, and those that do not depend on the number of samples."""

    inputs: int
    """What every kind of checkpointing keeps."""
    products: int
    """Results of convolutions, which selective checkpointing keeps beside them."""
    kept: int
    """All that the backward pass reads, inputs included."""
    reread: int
    """Of what selective checkpointing keeps, what the backward pass itself reads; the rest only serves to make other tensors again."""
    reread_inputs: int
    """The same of the inputs."""
    kernels: int
    """Kernels summed over time, for any number of samples."""
    backward: int
    """Gradients that live together at the worst moment of its backward pass."""

    def kept_with(self, checkpointing: str) -> int:
        """What stays until the backward pass comes to this layer; only residual blocks are checkpointed."""
        return {"none": self.kept, "selective": self.inputs + self.products, "full": self.inputs}[checkpointing]

    def recomputed_with(self, checkpointing: str) -> int:
        """What is there again, beside what stayed, when the backward pass comes to this layer."""
        return self.kept - {"none": self.kept, "selective": self.reread, "full": self.reread_inputs}[checkpointing]


@singledispatch
def layer_memory(layer: Layer, arithmetic: Arithmetic) -> LayerMemory:
    """One layer, whether its weights are trained or frozen: torch's convolutions keep their inputs for either."""
    raise TypeError(f"{layer} is no layer of an ST-VAE, in {arithmetic}")


@layer_memory.register
def _residual(layer: Residual, arithmetic: Arithmetic) -> LayerMemory:
    first, second = layer.norms()
    volume, narrow = layer.volume, arithmetic.narrow
    inputs = volume.size * layer.in_channels * narrow
    has_shortcut = layer.in_channels != layer.out_channels
    # On clips the shortcut reads the input in its own layout, of which the norm has made a copy.
    own_input = inputs if has_shortcut and volume.frames > 1 else 0
    result = volume.size * layer.out_channels * narrow
    gradients = _convolution_gradients(volume, layer.out_channels, layer.out_channels, arithmetic)
    reread_inputs = inputs if has_shortcut or volume.frames == 1 else 0
    return LayerMemory(
        inputs=inputs,
        products=result * (3 if has_shortcut else 2),
        kept=_before_convolution(first, volume, arithmetic) + _before_convolution(second, volume, arithmetic) + own_input,
        reread=reread_inputs + result,
        reread_inputs=reread_inputs,
        kernels=_summed_kernel(volume, layer.out_channels * (layer.in_channels + layer.out_channels), arithmetic),
        # The shortcut's gradient is made first, and waits for that of the other way.
        backward=result + (inputs if has_shortcut else 0) + gradients,
    )


@layer_memory.register
def _resampling(layer: Resampling, arithmetic: Arithmetic) -> LayerMemory:
    narrow, is_up = arithmetic.narrow, layer.after.size > layer.before.size
    read = layer.after.size if is_up else layer.after.frames * (layer.before.height + 1) * (layer.before.width + 1)
    # Averaging frame pairs keeps what it reads.
    pooled = layer.before.size if layer.after.frames < layer.before.frames else 0
    kept = (read + pooled) * layer.channels * narrow
    return LayerMemory(kept, 0, kept, kept, kept, 0, backward=(layer.after.size + read) * layer.channels * narrow)


@layer_memory.register
def _stem(layer: Stem, arithmetic: Arithmetic) -> LayerMemory:
    kept = _padded(layer.volume) * layer.in_channels * arithmetic.narrow
    kernels = _summed_kernel(layer.volume, layer.in_channels * layer.out_channels, arithmetic)
    return LayerMemory(kept, 0, kept, kept, kept, kernels, backward=layer.volume.size * layer.out_channels * arithmetic.narrow)


@layer_memory.register
def _head(layer: Head, arithmetic: Arithmetic) -> LayerMemory:
    (norm,) = layer.norms()
    kept = _before_convolution(norm, layer.volume, arithmetic)
    kernels = _summed_kernel(layer.volume, layer.in_channels * layer.out_channels, arithmetic)
    gradients = _convolution_gradients(layer.volume, layer.in_channels, layer.out_channels, arithmetic)
    return LayerMemory(kept, 0, kept, kept, kept, kernels, backward=gradients)


def losses_memory(pixels: Volume) -> int:
    """What surrounds the loss. Units: bytes a sample."""
    return NUM_LOSS_TENSORS * PIXEL_CHANNELS * pixels.size * FLOAT32


def batch_memory(pixels: Volume) -> int:
    """A sample's pixels. Units: bytes."""
    return PIXEL_CHANNELS * pixels.size * FLOAT32


def _before_convolution(norm: Norm, volume: Volume, arithmetic: Arithmetic) -> int:
    """Norm, SiLU and what the convolution reads; the decoder's norm keeps what it normed and its scale as well."""
    wide = 3 if norm.latent else 2
    scale = arithmetic.narrow if norm.latent else 0
    return norm.channels * (volume.size * (wide * arithmetic.normed + scale) + _padded(volume) * arithmetic.narrow)


def _convolution_gradients(volume: Volume, in_channels: int, out_channels: int, arithmetic: Arithmetic) -> int:
    # A clip's input and gradient are copied into the layout of the kernels.
    copies = 0 if volume.frames == 1 else _padded(volume) * in_channels + volume.size * out_channels
    return (_padded(volume) * in_channels + copies) * arithmetic.narrow


def _padded(volume: Volume) -> int:
    frames = 1 if volume.frames == 1 else volume.frames + CAUSAL_PADDING
    return frames * volume.height * volume.width


def _summed_kernel(volume: Volume, channels: int, arithmetic: Arithmetic) -> int:
    return FRAME_TAPS * channels * arithmetic.narrow if volume.frames == 1 else 0
