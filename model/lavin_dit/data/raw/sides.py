"""The two sides of a pair, decoded side by side: pictures, or as many frames of clips as are asked for."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lavin_dit.data.pixels import Clip, Picture
from lavin_dit.data.raw.images import decode_image, square_picture
from lavin_dit.data.raw.matching import FrameFolder, Side
from lavin_dit.data.raw.sources import Source
from lavin_dit.data.raw.videos import open_video
from lavin_dit.errors import InputError

BYTES_A_MEGAPIXEL = 8e6
"""The largest that a picture is stored with: 16 bits for each of red, green, blue and alpha."""
MORE_BYTES = 64 * 2**20
"""For what a file holds beside its pixels."""


def read_image(source: Source, max_megapixels: float) -> Image.Image:
    """Raises: InputError naming the file that cannot be read, or is larger than any picture of so many pixels."""
    content = source.read(max_bytes=max_megapixels * BYTES_A_MEGAPIXEL + MORE_BYTES)
    return decode_image(content, label=source.label, max_megapixels=max_megapixels)


@dataclass(frozen=True)
class Frames:
    """A clip's frames, to be taken one by one; `number` is how many there are, where that is known beforehand."""

    label: str
    number: int | None
    images: Iterator[Image.Image]


@contextmanager
def open_frames(side: Side, max_megapixels: float) -> Iterator[Frames]:
    """The frames of a folder or of a video.

    Raises: InputError, then and with each frame, naming the file that cannot be read.
    """
    if isinstance(side, FrameFolder):
        yield Frames(side.label, len(side.frames), (read_image(frame, max_megapixels) for frame in side.frames))
        return
    suffix = side.name.suffix.lower()
    with side.open() as stream, open_video(stream, label=side.label, suffix=suffix, max_megapixels=max_megapixels) as video:
        yield Frames(side.label, video.num_frames, video.frames())


def square_frames(frames: Frames, num_frames: int, resolution: int, *, is_nearest: bool) -> tuple[Clip, tuple[int, int]]:
    """The first frames as a clip of square pictures, and the size that they had.

    Raises: InputError where there are too few, one cannot be read, or one has another size than the first.
    """
    pictures: list[Picture] = []
    size = (0, 0)
    for number, image in enumerate(itertools.islice(frames.images, num_frames), start=1):
        size = image.size if number == 1 else size
        if image.size != size:
            sizes = f"its frame {number} is {_pixels(image.size)}, but its first is {_pixels(size)}"
            raise InputError(f"{frames.label}: {sizes}: all frames must have one size")
        pictures.append(square_picture(image, resolution, is_nearest=is_nearest))
    if len(pictures) < num_frames:
        raise InputError(f"{frames.label}: has {len(pictures)} frames: prepare.clip_frames takes {num_frames} of each clip")
    return np.stack(pictures), size


def check_lengths(inputs: Frames, targets: Frames) -> None:
    """Raises: InputError naming the target that is known to be of another length than its input."""
    if inputs.number is not None and targets.number is not None and inputs.number != targets.number:
        raise InputError(f"{targets.label}: has {targets.number} frames, but its input has {inputs.number}: both must have the same number")


def check_sizes(size: tuple[int, int], target_size: tuple[int, int], label: str) -> None:
    """Raises: InputError naming the target that has another size than its input."""
    if size != target_size:
        raise InputError(f"{label}: is {_pixels(target_size)}, but its input is {_pixels(size)}: both must have one size")


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
