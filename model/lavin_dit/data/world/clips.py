"""Clips of moving scenes: each frame is rendered like a still scene, so that its maps are known exactly as well, and so is its motion."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.furnishing import draw_layout
from lavin_dit.data.world.layout import EASY, World
from lavin_dit.data.world.motion import move
from lavin_dit.data.world.optical_flow import flow_between
from lavin_dit.data.world.scenes import Scene, render_traced

FIRST_CLIP = 2**32
"""Clips are numbered from here, so that no clip begins as one of the still scenes."""


@dataclass(frozen=True)
class MovingScene:
    """Consecutive frames, and where each pixel of a frame goes in the next one, whether it is seen there or not.

    The last frame's flow leads to a frame that is not shown.
    Shapes: `flows` (t, h, w, 2). Units: pixels, x to the right, y down.
    """

    frames: tuple[Scene, ...]
    flows: NDArray[np.float32]


def render_moving_scene(seed: int, index: int, resolution: int, *, num_frames: int, world: World = EASY) -> MovingScene:
    """Moving scene `index` of the world `seed`; depends on nothing but its arguments, and more frames only go on."""
    number = FIRST_CLIP + index
    layouts = list(move(draw_layout(seed, number, world), seed, number, num_frames + 1, difficulty=world.difficulty))
    rendered = [render_traced(layout, resolution) for layout in layouts[:-1]]
    flows = [flow_between(*pair, traces, resolution) for pair, (_, traces) in zip(pairwise(layouts), rendered, strict=True)]
    return MovingScene(tuple(scene for scene, _ in rendered), np.stack(flows))


def render_clip(seed: int, index: int, resolution: int, *, num_frames: int) -> NDArray[np.uint8]:
    """The pictures of a moving scene. Shapes: returns (t, h, w, 3) uint8."""
    return np.stack([scene.rgb for scene in render_moving_scene(seed, index, resolution, num_frames=num_frames).frames])
