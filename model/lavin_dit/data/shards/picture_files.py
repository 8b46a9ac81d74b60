"""Pictures as files in shards: PNG for what is decoded again, PNG, WebP or JPEG for what is looked at.

PNG and WebP (its lossless mode) give back every pixel. JPEG is at quality 95 with full colour resolution (4:4:4): about a quarter of the
bytes, and pixels that are a level or two away. Equal pictures give equal bytes.
"""

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.errors import InputError

PictureFormat = Literal["png", "webp", "jpeg"]

PNG_LEVEL = 1
SUFFIX_OF_FORMAT: Mapping[PictureFormat, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}
OPTIONS_OF_FORMAT: Mapping[PictureFormat, Mapping[str, Any]] = {
    "png": {"compress_level": PNG_LEVEL},
    # The lossless mode's own measure of effort: above 1 it takes several times as long for a few per cent.
    "webp": {"lossless": True, "quality": 20, "method": 1, "exact": True},
    "jpeg": {"quality": 95, "subsampling": "4:4:4"},
}
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def encode_picture(picture: NDArray[np.uint8], picture_format: PictureFormat) -> bytes:
    """A picture as a file. Shapes: (h, w, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=picture_format, **OPTIONS_OF_FORMAT[picture_format])
    return buffer.getvalue()


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG. Shapes: (h, w, 3) uint8."""
    return encode_picture(picture, "png")


def decode_picture(content: bytes, *, resolution: int) -> NDArray[np.uint8]:
    """A square picture of a known size, from any of the three formats and no other. Shapes: returns (h, w, 3) uint8.

    Raises: InputError saying what the bytes are instead, without a name for them.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(OPTIONS_OF_FORMAT)) as picture:
            if picture.size != (resolution, resolution):
                raise InputError(f"is {picture.width}x{picture.height}, not {resolution}x{resolution}")
            return np.asarray(picture.convert("RGB"))
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"is not a picture in {', '.join(OPTIONS_OF_FORMAT)}") from error
