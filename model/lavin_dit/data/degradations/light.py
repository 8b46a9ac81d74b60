"""Light and its display: pictures as amounts of linear light, where exposures, fog and blur add up, and back.

The display's curve is a gamma of 2, the one that scenes are exposed with: near to sRGB, and exact on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.pixels import Picture

Light = NDArray[np.floating]


def to_light(picture: Picture) -> Light:
    """Linear light in [0, 1]."""
    return np.square(picture.astype(np.float32) / 255)


def to_picture(light: Light) -> Picture:
    """The inverse of `to_light`; light beyond [0, 1] is clipped."""
    return to_8_bits(np.sqrt(np.maximum(light, 0)))


def to_8_bits(values: NDArray[np.floating]) -> Picture:
    """Display values in [0, 1] as 8 bits, rounded and clipped."""
    return np.asarray(np.rint(np.clip(values, 0.0, 1.0) * 255), np.uint8)
