"""Clips of moving scenes: each frame is rendered like a still scene, so that its maps are known exactly as well."""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.layout import draw_layout
from lavin_dit.data.motion import move
from lavin_dit.data.scenes import Scene, render

FIRST_CLIP = 2**32
"""Clips are numbered from here, so that no clip begins as one of the still scenes."""


def render_moving_scene(seed: int, index: int, resolution: int, *, num_frames: int) -> list[Scene]:
    """The frames of moving scene `index` of the world `seed`; depends on nothing but its arguments, and more frames only go on."""
    layout = draw_layout(seed, FIRST_CLIP + index)
    return [render(moved, resolution) for moved in move(layout, seed, FIRST_CLIP + index, num_frames)]


def render_clip(seed: int, index: int, resolution: int, *, num_frames: int) -> NDArray[np.uint8]:
    """The pictures of a moving scene. Shapes: returns (t, h, w, 3) uint8."""
    return np.stack([scene.rgb for scene in render_moving_scene(seed, index, resolution, num_frames=num_frames)])
