"""Named sizes of the ST-VAE and the J-DiT: numbers that the architecture fixes, not the experiment."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LATENT_CHANNELS = 16
SPATIAL_FACTOR = 8
TEMPORAL_FACTOR = 4
NUM_TIME_STAGES = 2
"""Stages of the ST-VAE that halve or double time as well as space."""
PATCH_SIZE = 2
PIXEL_CHANNELS = 3
PATCH_DIM = LATENT_CHANNELS * PATCH_SIZE**2
"""Numbers of a token before it is embedded."""
TIME_FEATURES = 256
"""Sinusoids of a time."""
MODULATIONS_PER_SIDE = 4
"""Scale and gate, of a block's attention and of its feed-forward."""
VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage of VGG16."""
MAX_WIDENING = 8
"""How much wider than its first layer a discriminator gets."""

Positive = Annotated[int, Field(gt=0)]


def latent_frames(frames: int) -> int:
    """Frames that the ST-VAE makes of a clip's, 1 of a picture."""
    return 1 + (frames - 1) // TEMPORAL_FACTOR


def latent_shape(frames: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Shapes: `(z, f, y, x)` of the latents of pixels `(c, t, h, w)`."""
    return LATENT_CHANNELS, latent_frames(frames), height // SPATIAL_FACTOR, width // SPATIAL_FACTOR


class Shape(BaseModel):
    """The size of a network. Frozen: two equal shapes build the same network."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class VaeShape(Shape):
    """The size of an ST-VAE; strides (8x8 in space, 4 in time) and latent channels (16) never change."""

    widths: Annotated[tuple[Positive, Positive, Positive, Positive], Field(strict=False)]
    """Channels of the four resolutions, from pixels to latents."""
    encoder_blocks: Positive
    """Residual blocks a stage in the encoder."""
    decoder_blocks: Positive
    """Residual blocks a stage in the decoder."""
    middle_blocks: Positive
    """Residual blocks in each middle block."""
    norm_groups: Positive
    """Groups of every GroupNorm."""

    @model_validator(mode="after")
    def _widths_divide(self) -> Self:
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(f"widths holds {width}: every width must be a multiple of norm_groups ({self.norm_groups})")
        return self


class DitShape(Shape):
    """The size of a J-DiT."""

    depth: Positive
    dim: Positive
    num_heads: Positive
    kv_group: Positive
    """Query heads that share one key-value head."""

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def num_kv_heads(self) -> int:
        return self.num_heads // self.kv_group

    @property
    def hidden_dim(self) -> int:
        """Width inside the SwiGLU: 8/3 of dim, rounded down to a multiple of 64."""
        return int(8 * self.dim / 3 / 64) * 64

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim is {self.dim}: must be a multiple of num_heads ({self.num_heads})")
        if self.head_dim % 6:
            raise ValueError(
                f"head_dim is {self.head_dim} (dim {self.dim} / num_heads {self.num_heads}): must be divisible by 6, "
                "for three equal rotary parts (time, y, x) of value pairs"
            )
        if self.num_heads % self.kv_group:
            raise ValueError(f"num_heads is {self.num_heads}: must be a multiple of kv_group ({self.kv_group})")
        if self.hidden_dim == 0:
            raise ValueError(f"dim is {self.dim}: must be at least 24, so that the feed-forward has a width")
        return self


VAE_PRESETS: dict[str, VaeShape] = {
    "tiny": VaeShape(widths=(8, 8, 16, 16), encoder_blocks=1, decoder_blocks=1, middle_blocks=1, norm_groups=4),
    "laptop": VaeShape(widths=(16, 32, 64, 96), encoder_blocks=1, decoder_blocks=1, middle_blocks=1, norm_groups=8),
    "small": VaeShape(widths=(64, 128, 128, 256), encoder_blocks=2, decoder_blocks=3, middle_blocks=2, norm_groups=32),
    "paper": VaeShape(widths=(128, 256, 256, 512), encoder_blocks=3, decoder_blocks=4, middle_blocks=2, norm_groups=32),
}

DIT_PRESETS: dict[str, DitShape] = {
    "tiny": DitShape(depth=2, dim=48, num_heads=4, kv_group=2),
    "laptop": DitShape(depth=4, dim=192, num_heads=4, kv_group=2),
    "0.03B": DitShape(depth=8, dim=384, num_heads=8, kv_group=4),
    "0.1B": DitShape(depth=12, dim=576, num_heads=8, kv_group=4),
    "1.0B": DitShape(depth=28, dim=1152, num_heads=16, kv_group=4),
    "3.4B": DitShape(depth=22, dim=2304, num_heads=32, kv_group=4),
}
