"""What is left out to make a picture smaller: its colours, its detail, or what JPEG drops."""

import io

import numpy as np
from PIL import Image

from lavin_dit.data.pixels import Picture
from lavin_dit.data.task import Depth

LUMA = (299, 587, 114)
"""Thousandths of red, green and blue."""
DOWNSCALE = 8
"""As coarse as one latent cell: at 4 a plain nearest enlargement is already as good as a small ST-VAE's own reconstruction."""
JPEG_QUALITY = (5, 20)


def remove_colour(picture: Picture, _depth: Depth | None, _generator: np.random.Generator) -> Picture:
    """Keeps the luma (ITU-R BT.601) alone."""
    luma = sum(share * channel.astype(np.uint32) for share, channel in zip(LUMA, np.moveaxis(picture, -1, 0), strict=True))
    return np.repeat(((luma + 500) // 1000).astype(np.uint8)[..., None], 3, axis=-1)


def shrink(picture: Picture, _depth: Depth | None, _generator: np.random.Generator) -> Picture:
    """Averages blocks of 8x8 pixels and enlarges them again, each to a plain square."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((max(1, width // DOWNSCALE), max(1, height // DOWNSCALE)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def compress(picture: Picture, _depth: Depth | None, generator: np.random.Generator) -> Picture:
    """Writes a JPEG file of quality 5-20, with halved colour resolution, and reads it back."""
    file = io.BytesIO()
    quality = int(generator.integers(JPEG_QUALITY[0], JPEG_QUALITY[1], endpoint=True))
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as spoilt:
        return np.asarray(spoilt.convert("RGB"))
