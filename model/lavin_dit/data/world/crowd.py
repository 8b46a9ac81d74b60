"""Draws figures, and finds room for them in a scene: whole in the picture, apart from everything, hidden by nothing."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lavin_dit.data.world.camera import Camera
from lavin_dit.data.world.chance import between
from lavin_dit.data.world.figures import HEAD, Figure, Gait, Outfit, Vector
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
    return _is_whole_at(_outline(figure), camera, figure.x, figure.base, figure.z)


def hides(nearer: Takes, thing: Takes) -> bool:
    """Whether a thing stands before another, seen from the camera's first place."""
    apart = abs(nearer.x / nearer.z - thing.x / thing.z)
    return nearer.z < thing.z and apart < nearer.reach / nearer.z + 0.7 * thing.reach / thing.z


def _find_place(layout: Layout, figure: Figure, random: np.random.Generator) -> Figure | None:
    nearest, outline = _nearest_whole(figure.height, layout.camera), _outline(figure)
    solids, figures = ([Spot(thing.x, thing.z, thing.reach) for thing in things] for things in (layout.solids, layout.figures))
    for _ in range(PLACEMENT_TRIES):
        z = between(random, nearest, nearest + DEPTH_RANGE_M)
        spot = Spot(between(random, -0.9, 0.9) * z * layout.camera.reach, z, figure.reach)
        if _is_free(spot, solids, figures):
            base = layout.foot(spot.x, z, figure.stance)
            if _is_whole_at(outline, layout.camera, spot.x, base, z):
                return replace(figure, x=spot.x, z=z, base=base)
    return None


def _outline(figure: Figure) -> Vector:
    """A figure's joints and the top of its head, from the ground in its middle. Shapes: (3, s)."""
    stature = figure.stature
    return np.vstack([stature, stature[HEAD] + [0.0, HEAD_ROOM * figure.height, 0.0]]).T


def _is_whole_at(outline: Vector, camera: Camera, x: float, base: float, z: float) -> bool:
    places = camera.project(outline + np.array([[x], [base], [z]]), 1)[:2]
    return bool(places.min() > MARGIN and places.max() < 1 - MARGIN)


def _nearest_whole(height: float, camera: Camera) -> float:
    """How far away a figure fits between the lower and the upper edge of the picture, about."""
    below, above = camera.pitch + camera.field_of_view / 2, camera.field_of_view / 2 - camera.pitch
    return max(NEAREST_M, 1.1 * camera.height / math.tan(below), 1.1 * (1.1 * height - camera.height) / math.tan(above))


def _is_free(spot: Spot, solids: Sequence[Spot], figures: Sequence[Spot]) -> bool:
    """Whether nothing stands there, or before it, and no figure behind it."""
    for other in (*solids, *figures):
        if not stand_apart(spot, other) or hides(other, spot):
            return False
    return not any(hides(spot, figure) for figure in figures)


def _make_way(layout: Layout, figure: Figure) -> Layout:
    """Puts the figure into the middle, as near as it is whole; solids in its way, or before it, leave."""
    z, outline = NEAREST_M, _outline(figure)
    while not _is_whole_at(outline, layout.camera, 0.0, layout.foot(0.0, z, figure.stance), z) and z < FARTHEST_M:
        z += PLACE_STEP_M
    placed = replace(figure, x=0.0, z=z, base=layout.foot(0.0, z, figure.stance))
    stay = [number for number, solid in enumerate(layout.solids) if stand_apart(placed, solid) and not hides(solid, placed)]
    solids, materials = tuple(layout.solids[number] for number in stay), tuple(layout.materials[number] for number in stay)
    return replace(layout, solids=solids, materials=materials, figures=(placed,))


def _draw_figure(random: np.random.Generator, difficulty: float) -> Figure:
    height, yaw, phase = between(random, 1.55, 1.95), between(random, 0, 2 * math.pi), between(random, 0, 2 * math.pi)
    return Figure(0.0, NEAREST_M, yaw, height, _draw_gait(random), phase, _draw_outfit(random, difficulty))


def _draw_gait(random: np.random.Generator) -> Gait:
    if random.random() > STANDING_CHANCE:
        spreads, bends = (between(random, 0.08, 0.3), between(random, 0.08, 0.3)), (between(random, 0.2, 0.8), between(random, 0.2, 0.8))
        return Gait(between(random, 0.25, 0.55), 0.1, spreads, bends, between(random, 0, 0.12))
    spreads, wave = (between(random, 0.1, 2.5), between(random, 0.1, 2.5)), between(random, 0.15, 0.4)
    return Gait(0.0, wave, spreads, (between(random, 0.1, 1.2), between(random, 0.1, 1.2)), between(random, -0.05, 0.1))


def _draw_outfit(random: np.random.Generator, difficulty: float) -> Outfit:
    tone = random.random()
    skin = (0.95 - 0.5 * tone, 0.76 - 0.5 * tone, 0.62 - 0.44 * tone)
    shirt = _draw_cloth(random, ("plain", "bands", "stripes", "noise") if random.random() < difficulty else ("plain",))
    sleeves = shirt if random.random() < 0.6 else _plain(skin, 0.1)
    return Outfit(
        skin=_plain(skin, 0.1),
        hair=_plain(colorsys.hsv_to_rgb(between(random, 0.04, 0.12), between(random, 0.2, 0.8), between(random, 0.1, 0.75)), 0.2),
        shirt=shirt,
        sleeves=sleeves,
        trousers=_draw_cloth(random, ("plain",)),
        shoes=_plain(colorsys.hsv_to_rgb(random.random(), between(random, 0, 0.5), between(random, 0.1, 0.9)), 0.3),
    )


def _draw_cloth(random: np.random.Generator, patterns: tuple[str, ...]) -> Material:
    first, second = (colorsys.hsv_to_rgb(random.random(), between(random, 0.2, 0.9), between(random, 0.25, 0.95)) for _ in range(2))
    return Material(patterns[random.integers(len(patterns))], first, second, 0.16, random.random(), 0.05)


def _plain(colour: Colour, gloss: float) -> Material:
    return Material("plain", colour, colour, 1.0, 0.0, gloss)
