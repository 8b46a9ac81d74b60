"""Colours that are told apart easily, and which of them a pixel of any picture is nearest to."""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.pixels import Picture

NUM_COLOURS = 160
"""Enough for the 150 classes of ADE20K and the 133 of COCO's panoptic segmentation, with one for what has none."""
GRID_STEP = 15
CHUNK = 1024
"""Pixels at a time: their distances to all colours stay in the core's own cache, which is five times as fast."""

FIRST_COLOURS = (
    (0, 0, 0),
    (128, 128, 128),
    (230, 30, 40),
    (40, 90, 240),
    (30, 200, 60),
    (250, 220, 30),
    (240, 50, 240),
    (40, 225, 235),
    (255, 130, 0),
    (120, 20, 160),
    (255, 255, 255),
    (0, 90, 70),
    (120, 60, 10),
    (255, 170, 190),
    (0, 0, 120),
    (160, 255, 150),
)


def spread_colours(first: tuple[tuple[int, int, int], ...], count: int) -> Picture:
    """`first`, then one by one the colour of a grid that is farthest from all before it: integers only, so equal everywhere.

    Shapes: to (count, 3).
    """
    axis = np.arange(0, 256, GRID_STEP)
    candidates = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    colours = [np.array(colour) for colour in first]
    distance = np.min([np.square(candidates - colour).sum(axis=-1) for colour in colours], axis=0)
    while len(colours) < count:
        colours.append(candidates[distance.argmax()])
        distance = np.minimum(distance, np.square(candidates - colours[-1]).sum(axis=-1))
    return np.array(colours, np.uint8)


PALETTE = spread_colours(FIRST_COLOURS, NUM_COLOURS)
"""Colours of the labels 0, 1, 2 …, all far from each other, and the first of them farther."""


def nearest_colour(picture: Picture, colours: Picture) -> NDArray[np.uint8]:
    """The index of the colour that is nearest to each pixel; of equally near ones the first.

    Shapes: (..., 3) and (n, 3), n up to 256, to (...).
    """
    pixels, palette = picture.reshape(-1, 3), colours.astype(np.float32)
    # |p - c|² without |p|², which is the same for every colour. Exact: all are integers below 2²⁴.
    offsets, slopes = np.square(palette).sum(axis=-1), -2 * palette.T
    nearest = np.empty(len(pixels), np.uint8)
    for start in range(0, len(pixels), CHUNK):
        nearest[start : start + CHUNK] = (pixels[start : start + CHUNK].astype(np.float32) @ slopes + offsets).argmin(axis=-1)
    return nearest.reshape(picture.shape[:-1])
