"""Optical flow as colours: the hue is the direction, the saturation the length, and the way back.

Source: the colour wheel of Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
Shapes: flow (..., h, w, 2), to the right and down; pictures (..., h, w, 3). Units: pixels.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.drawings.hues import CORNERS, colour_of, hue_and_chroma
from lavin_dit.data.pixels import Picture

MAX_FLOW_SHARE = 1 / 16
"""The motion at full saturation, as a share of the picture's width; a longer one is drawn at this length, in its direction."""

STEPS = (15, 6, 4, 11, 13, 6)
"""Of the wheel, from red to yellow, to green, to cyan, to blue, to magenta, and back to red: more where people tell more hues apart."""
CORNER_STEPS = np.cumsum((0, *STEPS))
LAST_STEP = sum(STEPS) - 1
"""The wheel leaves out the way from its last step to red: both mean the same direction, to the right."""


def encode_flow(flow: NDArray[np.floating]) -> Picture:
    """The colour wheel's picture of flow: white where nothing moves, saturated at `MAX_FLOW_SHARE` of the width and beyond."""
    right, down = np.moveaxis(np.asarray(flow, np.float64), -1, 0)
    saturation = np.minimum(np.hypot(right, down) / max_flow(flow.shape[-2]), 1.0)[..., None]
    step = (np.arctan2(-down, -right) / np.pi + 1.0) / 2.0 * LAST_STEP
    colour = colour_of(np.interp(step, CORNER_STEPS, CORNERS))
    return np.asarray(np.rint(255.0 * (1.0 - saturation * (1.0 - colour))), np.uint8)


def decode_flow(picture: Picture) -> NDArray[np.float32]:
    """The flow of a picture; the inverse of `encode_flow` to within 1 % of its longest motion. Grey of any brightness stands still."""
    hue, chroma = hue_and_chroma(picture)
    step = np.minimum(np.interp(hue, CORNERS, CORNER_STEPS), LAST_STEP)
    angle, length = (step / LAST_STEP * 2.0 - 1.0) * np.pi, chroma * max_flow(picture.shape[-2])
    return np.asarray(np.stack([-length * np.cos(angle), -length * np.sin(angle)], axis=-1), np.float32)


def max_flow(width: int) -> float:
    """The longest motion that a picture of this width shows."""
    return width * MAX_FLOW_SHARE
