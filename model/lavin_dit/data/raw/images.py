"""Any image file a person may have, as a square RGB picture: decoded with suspicion, cropped to the centre, resized."""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lavin_dit.data.pixels import Picture
from lavin_dit.data.raw.refusals import readable
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MOVING_FORMATS = ("PNG", "WEBP", "TIFF")
LIMIT = "prepare.max_megapixels"
ALPHA_MODES = ("LA", "La", "PA", "RGBa", "RGBA")
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, struct.error, zlib.error)
"""What Pillow raises on files that lie; found by damaging good ones."""


def decode_image(content: bytes, *, label: str, max_megapixels: float, limit: str = LIMIT) -> Image.Image:
    """An upright RGB image: EXIF rotation applied, transparency over white, 16-bit grey scaled to 8 bits.

    `limit` is what the user knows `max_megapixels` by.
    Raises: InputError naming `label` where the content is empty, damaged, too large, or of a kind without a plain meaning as RGB.
    """
    label = readable(label)
    if not content:
        raise InputError(f"{label}: is empty (0 bytes)")
    with own_pixel_limit(), named_warnings(label):
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                check_size(opened.size, label, max_megapixels, limit)
                _check_still(opened, label)
                return _to_rgb(ImageOps.exif_transpose(opened), label)
        except InputError:
            raise
        except UnidentifiedImageError as error:
            raise InputError(f"{label}: cannot be read as an image: it is damaged, or none of {', '.join(FORMATS)}") from error
        except DAMAGE as error:
            raise InputError(f"{label}: cannot be read as an image: it is damaged or cut off ({_first_line(error)})") from error


def square_picture(image: Image.Image, resolution: int, *, is_nearest: bool) -> Picture:
    """The central square of an image at a resolution; `is_nearest` never mixes colours. Shapes: returns (h, w, 3) uint8."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    filter_ = Image.Resampling.NEAREST if is_nearest else Image.Resampling.LANCZOS
    return np.asarray(image.resize((resolution, resolution), filter_, box=box))


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Leaves the limit to `max_megapixels`: Pillow's own is fixed, and a warning below it."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def named_warnings(label: str) -> Iterator[None]:
    """Pillow warns of harmless oddities (broken EXIF, say) without naming the file: the log does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in sorted({_first_line(warning.message) for warning in caught if isinstance(warning.message, Warning)}):
        logger.warning("%s: %s", label, message)


def check_size(size: tuple[int, int], label: str, max_megapixels: float, limit: str = LIMIT) -> None:
    """Raises: InputError naming `label` where width times height exceed the limit."""
    megapixels = size[0] * size[1] / 1e6
    if megapixels > max_megapixels:
        raise InputError(f"{label}: is {size[0]}x{size[1]} ({megapixels:.1f} megapixels): {limit} allows {max_megapixels:g}")


def _check_still(image: Image.Image, label: str) -> None:
    """Of several pictures none is the one that is meant; a phone's JPEG with a preview or depth map behind it has one that is."""
    if image.format not in MOVING_FORMATS:
        return
    try:
        image.seek(1)
    except EOFError:
        return
    raise InputError(f"{label}: is animated or has several pages: only still pictures are read; a clip is a folder of frames, or a video")


def _to_rgb(image: Image.Image, label: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image, label).convert("RGB")
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image, label: str) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise InputError(f"{label}: holds {image.mode} values outside of 16-bit grey (0 to 65535): save it as an 8-bit or 16-bit image")
    return Image.fromarray(np.rint(values.astype(np.float64) / 257).astype(np.uint8))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
