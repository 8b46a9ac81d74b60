"""The central square of an annotated picture: its pixels, and what its maps, points and boxes become in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from lavin_dit.data.drawings.encodings import Box
from lavin_dit.data.pixels import Picture
from lavin_dit.data.raw.images import decode_image, square_picture
from lavin_dit.data.readers.files import content_of
from lavin_dit.data.readers.item import Request


@dataclass(frozen=True)
class Square:
    """Where a picture is cut, and to how many pixels; the same square as `images.square_picture` cuts."""

    left: int
    top: int
    side: int
    resolution: int

    @classmethod
    def of(cls, size: tuple[int, int], resolution: int) -> Self:
        """The central square of a picture of a (width, height)."""
        side = min(size)
        return cls((size[0] - side) // 2, (size[1] - side) // 2, side, resolution)

    def pick(self, values: NDArray[Any]) -> NDArray[Any]:
        """The value in the middle of each new pixel, none mixed. Shapes: (H, W, ...) to (h, w, ...)."""
        steps = ((np.arange(self.resolution) + 0.5) * self.side / self.resolution).astype(np.intp)
        return values[self.top + steps][:, self.left + steps]

    def points(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where points of the picture lie in the square. Shapes: (..., 2) to (..., 2), x and y."""
        return (np.asarray(points, np.float64) - (self.left, self.top)) * (self.resolution / self.side)

    def box(self, box: Box) -> Box | None:
        """The part of a box (left, top, right, bottom) in the square, None where nothing of it is."""
        corners = np.clip(self.points(np.reshape(box, (2, 2))), 0, self.resolution)
        (left, top), (right, bottom) = corners.tolist()
        return (left, top, right, bottom) if right > left and bottom > top else None


def open_photo(folder: Path, name: str, request: Request) -> Image.Image:
    """Raises: InputError naming the file where it cannot be read as a picture."""
    return decode_image(content_of(folder, name), label=str(folder / name), max_megapixels=request.max_megapixels)


def square_photo(folder: Path, name: str, request: Request) -> Picture:
    """The central square of a photograph. Shapes: (h, w, 3) uint8."""
    return square_picture(open_photo(folder, name, request), request.resolution, is_nearest=False)


def fill_nearest(values: NDArray[Any], is_known: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Unknown pixels take the value of the nearest known one; also how far off that was, in pixels. Something must be known."""
    distances, nearest = distance_transform_edt(~is_known, return_indices=True)
    return values[tuple(nearest)], distances.astype(np.float32)
