"""How large the rendered data set and its latents are. Never imports torch."""

from dataclasses import dataclass

from lavin_dit.config import Config
from lavin_dit.planning.flops import vae_flops
from lavin_dit.planning.step_time import Fleet
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR

PNG_BYTES_A_PIXEL, PNG_RESOLUTION, PNG_EXPONENT = 0.45, 256, 0.55
"""Of prepared pictures, measured at 64, 128 and 256 px: 0.97, 0.62 and 0.45 bytes a pixel."""
PICTURES_OF_A_PAIR = 2
LATENT_WIDTH = 2
"""Latents are kept in half precision."""


@dataclass(frozen=True)
class DataPlan:
    """What `prepare` renders; a user's own files come on top. Units: bytes, seconds."""

    num_pairs: int
    num_pictures: int
    """Distinct ones: tasks share their scenes' pictures."""
    shard_bytes: int
    latent_bytes: int
    """On disk once, and in the memory of every process."""
    encode_s: float
    """Encoding them, before the J-DiT's first step."""


def plan_data(config: Config, fleet: Fleet) -> DataPlan:
    """The rendered data set and its latents."""
    prepare, resolution = config.prepare, config.prepare.resolution
    scenes = prepare.num_train_scenes + prepare.num_test_scenes
    clip_pictures = (prepare.num_train_clips + prepare.num_test_clips) * prepare.clip_frames
    pictures = prepare.num_train_scenes * (len(prepare.tasks) + 1)
    pairs = scenes * len(prepare.tasks)
    encode, _ = vae_flops(config.train_vae.shape, samples=1, frames=1, height=resolution, width=resolution)
    # Encoding computes in float32.
    speed = fleet.layout.num_gpus * fleet.mfu * fleet.device.peak_flops("float32")
    return DataPlan(
        num_pairs=pairs,
        num_pictures=pictures,
        shard_bytes=round((PICTURES_OF_A_PAIR * pairs + clip_pictures) * picture_bytes(resolution)),
        latent_bytes=pictures * latent_bytes(resolution),
        encode_s=pictures * encode / speed,
    )


def picture_bytes(resolution: int) -> float:
    """A rendered picture as PNG."""
    bytes_a_pixel: float = PNG_BYTES_A_PIXEL * (PNG_RESOLUTION / resolution) ** PNG_EXPONENT
    return bytes_a_pixel * resolution**2


def latent_bytes(resolution: int) -> int:
    """A picture's latents."""
    return LATENT_CHANNELS * (resolution // SPATIAL_FACTOR) ** 2 * LATENT_WIDTH
