"""Draws figures, and finds room for them in a scene: whole in the picture, apart from everything, hidden by nothing."""

import colorsys
import math
from dataclasses import replace

import numpy as np

from lavin_dit.data.world.camera import Camera
from lavin_dit.data.world.figures import Figure, Gait, Outfit
from lavin_dit.data.world.layout import Layout, Spot, Takes, stand_apart
from lavin_dit.data.world.textures import Colour, Material

MAX_MORE_FIGURES = 1
"""Beside the first, in the hardest world."""
PLACEMENT_TRIES = 25
STANDING_CHANCE = 0.35
MARGIN = 0.03
"""Of the picture's width, around a whole figure."""
NEAREST_M, FARTHEST_M, PLACE_STEP_M = 3.0, 8.0, 0.25
DEPTH_RANGE_M = 2.5
HEAD_ROOM = 0.08
"""Of a figure's height, above the middle of its head."""


def admit_figures(layout: Layout, random: np.random.Generator, difficulty: float) -> Layout:
    """The layout with one figure at least; solids give way where there is no room for the first."""
    wanted = 1 + int(random.integers(0, round(MAX_MORE_FIGURES * difficulty) + 1))
    for number in range(wanted):
        figure = _draw_figure(random, difficulty)
        place = _find_place(layout, figure, random)
        if place is not None:
            layout = replace(layout, figures=(*layout.figures, place))
        elif number == 0:
            layout = _make_way(layout, figure)
    return layout


def is_whole(figure: Figure, camera: Camera) -> bool:
    """Whether the picture holds all of a figure."""
    joints = figure.joints
    reaches = np.vstack([joints, joints[0] + [0.0, HEAD_ROOM * figure.height, 0.0]])
    columns, rows, _ = camera.project(reaches.T, 1)
    return bool(min(columns.min(), rows.min()) > MARGIN and max(columns.max(), rows.max()) < 1 - MARGIN)


def hides(nearer: Takes, thing: Takes) -> bool:
    """Whether a thing stands before another, seen from the camera's first place."""
    apart = abs(nearer.x / nearer.z - thing.x / thing.z)
    return nearer.z < thing.z and apart < nearer.reach / nearer.z + 0.7 * thing.reach / thing.z


def _find_place(layout: Layout, figure: Figure, random: np.random.Generator) -> Figure | None:
    nearest = _nearest_whole(figure.height, layout.camera)
    for _ in range(PLACEMENT_TRIES):
        z = random.uniform(nearest, nearest + DEPTH_RANGE_M)
        spot = Spot(random.uniform(-0.9, 0.9) * z * layout.camera.reach, z, figure.reach)
        if _is_free(layout, spot) and is_whole(placed := _place(layout, figure, spot.x, z), layout.camera):
            return placed
    return None


def _nearest_whole(height: float, camera: Camera) -> float:
    """How far away a figure fits between the lower and the upper edge of the picture, about."""
    below, above = camera.pitch + camera.field_of_view / 2, camera.field_of_view / 2 - camera.pitch
    return max(NEAREST_M, 1.1 * camera.height / math.tan(below), 1.1 * (1.1 * height - camera.height) / math.tan(above))


def _is_free(layout: Layout, spot: Spot) -> bool:
    """Whether nothing stands there, or before it, and no figure behind it."""
    solids_allow = all(stand_apart(spot, solid) and not hides(solid, spot) for solid in layout.solids)
    return solids_allow and all(
        stand_apart(spot, figure) and not hides(figure, spot) and not hides(spot, figure) for figure in layout.figures
    )


def _make_way(layout: Layout, figure: Figure) -> Layout:
    """Puts the figure into the middle, as near as it is whole; solids in its way, or before it, leave."""
    z = NEAREST_M
    while not is_whole(placed := _place(layout, figure, 0.0, z), layout.camera) and z < FARTHEST_M:
        z += PLACE_STEP_M
    stay = [number for number, solid in enumerate(layout.solids) if stand_apart(placed, solid) and not hides(solid, placed)]
    solids, materials = tuple(layout.solids[number] for number in stay), tuple(layout.materials[number] for number in stay)
    return replace(layout, solids=solids, materials=materials, figures=(placed,))


def _place(layout: Layout, figure: Figure, x: float, z: float) -> Figure:
    return replace(figure, x=x, z=z, base=layout.foot(x, z, figure.stance))


def _draw_figure(random: np.random.Generator, difficulty: float) -> Figure:
    height, yaw, phase = random.uniform(1.55, 1.95), random.uniform(0, 2 * math.pi), random.uniform(0, 2 * math.pi)
    return Figure(0.0, NEAREST_M, yaw, height, _draw_gait(random), phase, _draw_outfit(random, difficulty))


def _draw_gait(random: np.random.Generator) -> Gait:
    if random.uniform() > STANDING_CHANCE:
        spreads, bends = (random.uniform(0.08, 0.3), random.uniform(0.08, 0.3)), (random.uniform(0.2, 0.8), random.uniform(0.2, 0.8))
        return Gait(random.uniform(0.25, 0.55), 0.1, spreads, bends, random.uniform(0, 0.12))
    spreads = random.uniform(0.1, 2.5), random.uniform(0.1, 2.5)
    return Gait(0.0, random.uniform(0.15, 0.4), spreads, (random.uniform(0.1, 1.2), random.uniform(0.1, 1.2)), random.uniform(-0.05, 0.1))


def _draw_outfit(random: np.random.Generator, difficulty: float) -> Outfit:
    tone = random.uniform(0, 1)
    skin = (0.95 - 0.5 * tone, 0.76 - 0.5 * tone, 0.62 - 0.44 * tone)
    shirt = _draw_cloth(random, ("plain", "bands", "stripes", "noise") if random.uniform() < difficulty else ("plain",))
    sleeves = shirt if random.uniform() < 0.6 else _plain(skin, 0.1)
    return Outfit(
        skin=_plain(skin, 0.1),
        hair=_plain(colorsys.hsv_to_rgb(random.uniform(0.04, 0.12), random.uniform(0.2, 0.8), random.uniform(0.1, 0.75)), 0.2),
        shirt=shirt,
        sleeves=sleeves,
        trousers=_draw_cloth(random, ("plain",)),
        shoes=_plain(colorsys.hsv_to_rgb(random.uniform(0, 1), random.uniform(0, 0.5), random.uniform(0.1, 0.9)), 0.3),
    )


def _draw_cloth(random: np.random.Generator, patterns: tuple[str, ...]) -> Material:
    first, second = (colorsys.hsv_to_rgb(random.uniform(0, 1), random.uniform(0.2, 0.9), random.uniform(0.25, 0.95)) for _ in range(2))
    return Material(patterns[random.integers(len(patterns))], first, second, 0.16, random.uniform(0, 1), 0.05)


def _plain(colour: Colour, gloss: float) -> Material:
    return Material("plain", colour, colour, 1.0, 0.0, gloss)
