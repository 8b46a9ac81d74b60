"""Maps of numbers kept in PNG files: class and instance numbers, palette indices, 16-bit depths, exactly as stored."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lavin_dit.data.raw.images import DAMAGE, check_size, named_warnings, own_pixel_limit
from lavin_dit.data.readers.files import content_of
from lavin_dit.data.readers.item import Request
from lavin_dit.errors import InputError

Map = NDArray[np.int32]
MODES = ("1", "L", "P", "I;16", "I;16B", "I")


def read_map(folder: Path, name: str, photo: Image.Image, request: Request) -> Map:
    """The map of a picture. Shapes: returns (H, W), the picture's size.

    Raises: InputError naming the file where it cannot be read, or has another size than its picture.
    """
    label = str(folder / name)
    values = decode_map(content_of(folder, name), label=label, max_megapixels=request.max_megapixels)
    check_size_of(values, photo, label)
    return values


def check_size_of(values: NDArray[np.generic], photo: Image.Image, label: str) -> None:
    """Raises: InputError where a map has another size than the picture it belongs to."""
    height, width = values.shape[:2]
    if (width, height) != photo.size:
        raise InputError(f"{label}: is {width}x{height}, but its picture is {photo.width}x{photo.height}: both must have one size")


def check_labels(labels: Map, count: int, label: str) -> None:
    """Raises: InputError where a label is none of the first `count`."""
    if labels.min() < 0 or labels.max() >= count:
        raise InputError(f"{label}: holds the number {int(labels.max())}: the data set's are 0 to {count - 1}")


def decode_map(content: bytes, *, label: str, max_megapixels: float) -> Map:
    """The numbers in a PNG of one channel: a palette's indices, not its colours, and 16 bits where there are 16.

    Shapes: returns (H, W).
    Raises: InputError naming `label` where it is no such PNG, is damaged, or is too large.
    """
    try:
        with own_pixel_limit(), named_warnings(label), Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
            check_size(opened.size, label, max_megapixels)
            if opened.mode not in MODES:
                raise InputError(f"{label}: is a {opened.mode} image: must be a PNG of one channel, as it was published")
            return np.asarray(opened).astype(np.int32)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{label}: cannot be read as a PNG of one channel") from error
    except DAMAGE as error:
        raise InputError(f"{label}: cannot be read as a PNG, it is damaged or cut off") from error
