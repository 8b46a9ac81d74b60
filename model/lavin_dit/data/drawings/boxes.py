"""A box as a picture, and the box of a picture: white filled on black, which survives a model's ragged edges, holes and specks.

Units: pixels; a box is x0, y0, x1, y1, and the corners of pixels are whole numbers.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.pixels import Picture

Box = tuple[float, float, float, float]

MIN_BOX_PIXELS = 4
"""Fewer white pixels than this are a speck."""


def draw_box(box: Box, height: int, width: int) -> Picture:
    """The box filled with white; pixels at its edges are as bright as the share of them that it covers."""
    x0, y0, x1, y1 = box
    coverage = np.outer(_coverage(y0, y1, height), _coverage(x0, x1, width))
    return np.repeat(np.rint(coverage * 255.0).astype(np.uint8)[..., None], 3, axis=-1)


def find_box(picture: Picture) -> Box | None:
    """The box that holds the most pixels nearer to white than to black over those that are not; None where that is less than a speck.

    The inverse of `draw_box` to within 0.01 pixels for boxes of three pixels a side and more. Every such rectangle is tried.
    """
    brightness = picture.astype(np.float64).mean(axis=-1) / 255.0
    found = _brightest_rectangle(brightness - 0.5)
    if found is None:
        return None
    left, top, right, bottom = found
    # Rows and columns at the edges are themselves covered in part, so those within tell how far the other edges reach.
    columns = brightness[_within(top, bottom)].mean(axis=0)
    rows = brightness[:, _within(left, right)].mean(axis=1)
    (x0, x1), (y0, y1) = _ends(columns, left, right), _ends(rows, top, bottom)
    return x0, y0, x1, y1


def box_iou(box: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    across = min(box[2], other[2]) - max(box[0], other[0])
    down = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (_area(box) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _coverage(start: float, end: float, count: int) -> NDArray[np.float64]:
    """The share of each of `count` pixels that an interval covers."""
    pixels = np.arange(count, dtype=np.float64)
    return np.asarray(np.clip(np.minimum(pixels + 1.0, end) - np.maximum(pixels, start), 0.0, 1.0), np.float64)


def _brightest_rectangle(excess: NDArray[np.float64]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the rectangle of pixels with the greatest sum."""
    sums = np.pad(excess.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    best, found = MIN_BOX_PIXELS / 2, None
    for top in range(len(excess)):
        strips = sums[top + 1 :] - sums[top]
        gains = strips - np.minimum.accumulate(strips, axis=1)
        row, right = divmod(int(gains.argmax()), gains.shape[1])
        if gains[row, right] > best:
            best, found = gains[row, right], (int(strips[row, :right].argmin()), top, right, top + 1 + row)
    return found


def _within(start: int, end: int) -> slice:
    return slice(start + 1, end - 1) if end - start > 2 else slice(start, end)


def _ends(profile: NDArray[np.float64], start: int, end: int) -> tuple[float, float]:
    """Where an interval of whole pixels really starts and ends, by how bright the pixels on both sides of its ends are."""
    if end - start < 2:
        return float(start), float(end)
    padded = np.pad(profile, 1)
    return float(start + 1.0 - padded[start] - padded[start + 1]), float(end - 1.0 + padded[end] + padded[end + 1])
