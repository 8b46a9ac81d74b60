"""Hue on the hexagon of fully saturated colours, where one channel is full, one empty, and the third rises or falls.

Units: hues in [0, 6]: red 0, yellow 1, green 2, cyan 3, blue 4, magenta 5, red 6; chroma, strongest less weakest channel, in [0, 1].
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.pixels import Picture

NUM_CORNERS = 6
CORNERS = np.arange(NUM_CORNERS + 1)
CORNER_COLOURS = ((1, 1, 0, 0, 0, 1, 1), (0, 1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1, 0))


def colour_of(hue: NDArray[np.floating]) -> NDArray[np.float64]:
    """The fully saturated colour of a hue, in [0, 1]. Shapes: (...) to (..., 3)."""
    return np.stack([np.interp(hue, CORNERS, channel) for channel in CORNER_COLOURS], axis=-1)


def hue_and_chroma(picture: Picture) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The hue of each pixel, 0 for greys, which have none, and its chroma. Shapes: (..., 3) to (...) both."""
    red, green, blue = np.moveaxis(picture.astype(np.float32) / np.float32(255.0), -1, 0)
    highest = np.maximum(np.maximum(red, green), blue)
    chroma = highest - np.minimum(np.minimum(red, green), blue)
    span = np.where(chroma > 0, chroma, np.float32(1.0))
    by_highest = [(green - blue) / span % NUM_CORNERS, (blue - red) / span + 2]
    return np.select([highest == red, highest == green], by_highest, (red - green) / span + 4), chroma
