"""Holes: parts of a picture that are gone."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lavin_dit.data.pixels import Picture
from lavin_dit.data.task import Depth

HOLE_GREY = 128
HOLE_SHARE = (0.2, 0.4)


def cut_holes(picture: Picture, _depth: Depth | None, generator: np.random.Generator) -> Picture:
    """Fills random boxes and strokes with grey until 20-40 % of the picture is gone."""
    spoilt = picture.copy()
    spoilt[draw_holes(picture.shape[0], picture.shape[1], generator)] = HOLE_GREY
    return spoilt


def draw_holes(height: int, width: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """A mask (h, w) of boxes and strokes that covers 20-40 %."""
    goal = generator.uniform(HOLE_SHARE[0], HOLE_SHARE[1] - 0.1)
    holes = np.zeros((height, width), np.bool_)
    while holes.mean() < goal:
        more = holes | _draw_hole(height, width, generator)
        if more.mean() <= HOLE_SHARE[1]:
            holes = more
    return holes


def _draw_hole(height: int, width: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    x, y = generator.uniform(0, 1, 2) * (width, height)
    if generator.uniform() < 0.5:
        half_width, half_height = generator.uniform(0.06, 0.18, 2) * (width, height)
        pen.rectangle((x - half_width, y - half_height, x + half_width, y + half_height), fill=1)
    else:
        steps = generator.uniform(-0.35, 0.35, (4, 2)) * (width, height)
        corners = np.clip(np.array([x, y]) + np.cumsum(steps, axis=0), 0, (width, height))
        pen.line(
            [(float(x), float(y)) for x, y in corners], fill=1, width=max(1, round(generator.uniform(0.05, 0.09) * width)), joint="curve"
        )
    return np.asarray(canvas).astype(np.bool_)
