"""Objects as colours whose order can be read off the picture, and the objects of such a picture.

An object is what fills a square of `MIN_SIDE` pixels somewhere: thinner things are lost in an 8-fold latent, and the blends of two
colours along a model's soft outlines are as thin. Anything else is background when it is drawn, and goes to the nearest of the
colours that are left when it is read.

Shapes: ids (h, w), or (t, h, w) of a clip, 0 where there is no object; pictures likewise with 3 channels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from lavin_dit.data.drawings.palette import PALETTE, nearest_colour
from lavin_dit.data.pixels import Picture

MAX_INSTANCES = 31
"""Objects that one picture tells apart; of more, the largest. With more colours they would be too near to each other."""
MIN_SIDE = 3
COLOURS = PALETTE[: MAX_INSTANCES + 1]


def encode_instances(ids: NDArray[np.integer]) -> Picture:
    """Background black; objects in the colours of the palette from left to right, by the columns of their centres, whatever their ids."""
    return np.asarray(encode_instance_clip(ids[None])[0], np.uint8)


def encode_instance_clip(ids: NDArray[np.integer]) -> Picture:
    """As `encode_instances`; an object keeps its colour through the clip, and those that appear later come after."""
    return np.asarray(COLOURS[number_objects(ids)], np.uint8)


def decode_instances(picture: Picture) -> NDArray[np.uint8]:
    """The number of each pixel's object, 0 for background: the inverse of both encoders, up to what is no object. A clip is one whole."""
    numbers = nearest_colour(picture, COLOURS)
    kept = np.union1d([0], _solid(numbers)).astype(np.uint8)
    return kept[nearest_colour(picture, COLOURS[kept])]


def number_objects(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Numbers from 1 by the first frame in which an object is seen, then from left to right there. Shapes: (t, h, w)."""
    names, compact = np.unique(ids, return_inverse=True)
    compact = compact.reshape(ids.shape)
    objects = [index for index in _solid(compact) if names[index] != 0]
    sizes = np.bincount(compact.ravel())
    places = {index: _first_seen(compact == index) for index in objects}
    largest = sorted(objects, key=lambda index: (-sizes[index], places[index]))[:MAX_INSTANCES]
    numbers = np.zeros(len(names), np.uint8)
    numbers[sorted(largest, key=lambda index: places[index])] = np.arange(1, len(largest) + 1)
    return numbers[compact]


def _solid(numbers: NDArray[np.integer]) -> NDArray[np.integer]:
    """Which numbers fill a square somewhere. Shapes: (..., h, w), to (n,)."""
    side = (1,) * (numbers.ndim - 2) + (MIN_SIDE, MIN_SIDE)
    lowest, highest = (extreme(numbers, size=side, mode="nearest") for extreme in (minimum_filter, maximum_filter))
    return np.unique(numbers[lowest == highest])


def _first_seen(is_object: NDArray[np.bool_]) -> tuple[int, float, float, int]:
    """The first frame with an object, its centre's column and row there, and its first pixel, which no other object has."""
    frame = int(is_object.any(axis=(1, 2)).argmax())
    rows, columns = np.nonzero(is_object[frame])
    return frame, float(columns.mean()), float(rows.mean()), int(rows[0] * is_object.shape[2] + columns[0])
