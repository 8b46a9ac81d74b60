"""Draws layouts from (seed, index) alone: equal arguments give equal layouts, on every machine and in every order.

Each number has a range in the easy world and one in the hardest; a world's ranges lie between. What the easy world lacks altogether is
drawn from streams of its own, which the easy world does not touch.
"""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lavin_dit.data.world.camera import Camera
from lavin_dit.data.world.chance import between
from lavin_dit.data.world.crowd import admit_figures
from lavin_dit.data.world.layout import EASY, EASY_SHAPES, SHAPES, Lamp, Layout, Light, Solid, World, stand_apart
from lavin_dit.data.world.terrain import Terrain, Wave
from lavin_dit.data.world.textures import Colour, Material

HARD_STREAM, FIGURE_STREAM = 2, 3
EASY_PATTERNS = ("plain", "plain", "checker", "bands", "panels")
HARD_PATTERNS = ("noise", "noise", "stripes", "gradient", "checker", "plain")
EASY_GROUNDS = ("plain", "checker", "checker", "bands", "patches")
HARD_GROUNDS = ("noise", "noise", "stripes", "checker", "patches")

HUES = {"sphere": 0.0, "box": 0.60, "cylinder": 0.36, "cone": 0.13, "torus": 0.84}
HUE_SPREAD = 0.06
PLACEMENT_TRIES = 60
LOWEST_LIGHT = math.radians(31)
MAX_LAMPS = 2


class Draws:
    """Random numbers whose ranges widen with a world's difficulty.

    `hard` is a stream beside the first, from which only worlds that are not easy draw.
    """

    def __init__(self, seed: int, index: int, difficulty: float) -> None:
        self.first = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        self.hard = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, HARD_STREAM])))
        self.difficulty = difficulty

    def uniform(self, easy: tuple[float, float], hard: tuple[float, float] | None = None) -> float:
        """A number from the range between `easy` and `hard`."""
        low, high = easy
        if hard is not None and self.difficulty > 0:
            low, high = self._between(low, hard[0]), self._between(high, hard[1])
        return between(self.first, low, high)

    def whole(self, easy: tuple[int, int], hard: tuple[int, int]) -> int:
        """A whole number, ends included."""
        low, high = (round(self._between(*bounds)) for bounds in zip(easy, hard, strict=True))
        return int(self.first.integers(low, high + 1))

    def choice(self, easy: Sequence[str], hard: Sequence[str]) -> str:
        """One of `easy`, or as likely as the world is hard one of `hard`."""
        chosen = easy[int(self.first.integers(len(easy)))]
        return hard[int(self.hard.integers(len(hard)))] if self.is_hard() else chosen

    def is_hard(self, chance: float = 1.0) -> bool:
        """Whether one thing is drawn as in the hardest world; never in the easy one."""
        return self.difficulty > 0 and self.hard.random() < chance * self.difficulty

    def _between(self, easy: float, hard: float) -> float:
        return easy + (hard - easy) * self.difficulty


def draw_layout(seed: int, index: int, world: World = EASY) -> Layout:
    """The layout of scene `index` of a world."""
    draws = Draws(seed, index, world.difficulty)
    camera = Camera(
        draws.uniform((1.3, 2.3), (1.1, 2.7)),
        math.radians(draws.uniform((5, 17), (4, 20))),
        math.radians(draws.uniform((46, 58), (42, 64))),
    )
    solids = _draw_solids(draws, camera)
    materials = tuple(_draw_material(draws, solid.shape) for solid in solids)
    layout = Layout(camera, _draw_light(draws), _draw_ground(draws), solids, materials, is_sampled_everywhere=world == EASY)
    if world.difficulty > 0:
        layout = _roughen(layout, draws)
    if world.figures:
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, FIGURE_STREAM])))
        layout = admit_figures(layout, random, world.difficulty)
    return layout


def _roughen(layout: Layout, draws: Draws) -> Layout:
    """Adds what the easy world lacks: rolling ground and more lights."""
    lamps = tuple(_draw_lamp(draws) for _ in range(draws.hard.integers(MAX_LAMPS + 1) if draws.is_hard() else 0))
    light = replace(layout.light, strength=layout.light.strength * (1 - 0.3 * len(lamps)))
    layout = replace(layout, lamps=lamps, light=light, terrain=_draw_terrain(draws) if draws.is_hard() else None)
    solids = (replace(solid, base=layout.foot(solid.x, solid.z, solid.reach)) for solid in layout.solids)
    return replace(layout, solids=tuple(solids))


def _draw_lamp(draws: Draws) -> Lamp:
    towards = _direction(between(draws.hard, 0, 2 * math.pi), between(draws.hard, LOWEST_LIGHT, math.radians(75)))
    colour = colorsys.hsv_to_rgb(draws.hard.random(), between(draws.hard, 0.1, 0.6), 1.0)
    return Lamp(towards, colour, between(draws.hard, 0.2, 0.5))


def _draw_terrain(draws: Draws) -> Terrain:
    """Three waves that run across one another."""
    first_heading, relief = between(draws.hard, 0, math.pi), draws.difficulty * between(draws.hard, 0.5, 1)
    waves = []
    for number, (steepness, length_m) in enumerate(((0.3, 9.0), (0.16, 5.0), (0.08, 2.8))):
        heading = first_heading + number * math.pi / 3 + between(draws.hard, -0.3, 0.3)
        length_m *= between(draws.hard, 0.8, 1.25)
        frequency, phase = 1 / length_m, draws.hard.random()
        waves.append(Wave(relief * steepness / (8 * frequency), frequency * math.cos(heading), frequency * math.sin(heading), phase))
    terrain = Terrain(tuple(waves))
    assert terrain.steepest < math.tan(LOWEST_LIGHT), "the ground would have to throw shadows"
    return terrain


def _direction(azimuth: float, elevation: float) -> tuple[float, float, float]:
    return math.cos(elevation) * math.sin(azimuth), math.sin(elevation), math.cos(elevation) * math.cos(azimuth)


def _draw_light(draws: Draws) -> Light:
    azimuth, elevation = draws.uniform((0.6, 2 * math.pi - 0.6), (0, 2 * math.pi)), math.radians(draws.uniform((32, 62), (32, 75)))
    hue = draws.uniform((0.55, 0.62))
    if draws.is_hard(0.4):
        hue = draws.hard.random()
    zenith = colorsys.hsv_to_rgb(hue, draws.uniform((0.55, 0.8), (0.2, 0.8)), draws.uniform((0.65, 0.9), (0.45, 0.95)))
    horizon = colorsys.hsv_to_rgb(hue, draws.uniform((0.08, 0.25), (0.03, 0.4)), draws.uniform((0.88, 1.0), (0.75, 1.0)))
    strength, ambient = draws.uniform((0.75, 1.0), (0.6, 1.0)), draws.uniform((0.28, 0.4), (0.2, 0.45))
    light = Light(_direction(azimuth, elevation), strength, ambient, zenith, horizon)
    if draws.is_hard():
        light = replace(
            light, haze_m=between(draws.hard, 25, 90), clouds=between(draws.hard, 0.1, 0.9), cloud_place=between(draws.hard, 0, 1000)
        )
    return light


def _draw_ground(draws: Draws) -> Material:
    dryness = draws.uniform((0, 1))
    hue = 0.30 - 0.22 * dryness
    if draws.is_hard(0.7):
        hue = draws.hard.random()
    saturation, value = draws.uniform((0.4, 0.6), (0.1, 0.6)) - 0.15 * dryness, 0.5 + 0.32 * dryness
    first = colorsys.hsv_to_rgb(hue, max(saturation, 0.0), value)
    second = colorsys.hsv_to_rgb(hue, max(saturation, 0.0) * 0.9, value * draws.uniform((0.6, 0.8), (0.45, 0.85)))
    pattern = draws.choice(EASY_GROUNDS, HARD_GROUNDS)
    return Material(pattern, first, second, draws.uniform((0.7, 1.4), (0.5, 1.6)), draws.uniform((0, 1)), 0.0)


def _draw_material(draws: Draws, shape: str) -> Material:
    hue = HUES[shape] + draws.uniform((-HUE_SPREAD, HUE_SPREAD))
    if draws.first.random() < 0.1 + 0.9 * draws.difficulty:
        hue = draws.uniform((0, 1))
    saturation, value = draws.uniform((0.65, 0.95), (0.1, 0.95)), draws.uniform((0.7, 0.95), (0.35, 0.95))
    first = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    second = colorsys.hsv_to_rgb(hue % 1, saturation * draws.uniform((0.2, 0.5)), min(1.0, value * 1.15))
    if draws.is_hard(0.6):
        second = _any_colour(draws)
    pattern = draws.choice(EASY_PATTERNS, HARD_PATTERNS)
    return Material(pattern, first, second, draws.uniform((0.35, 0.6), (0.25, 0.7)), draws.uniform((0, 1)), draws.uniform((0.1, 0.5)))


def _any_colour(draws: Draws) -> Colour:
    return colorsys.hsv_to_rgb(draws.hard.random(), between(draws.hard, 0.1, 0.9), between(draws.hard, 0.25, 0.95))


def _draw_solids(draws: Draws, camera: Camera) -> tuple[Solid, ...]:
    wanted = draws.whole((2, 5), (3, 8))
    solids: list[Solid] = []
    for _ in range(PLACEMENT_TRIES):
        solid = _draw_solid(draws, camera)
        if all(stand_apart(solid, other) for other in solids):
            solids.append(solid)
        if len(solids) == wanted:
            break
    return tuple(solids)


def _draw_solid(draws: Draws, camera: Camera) -> Solid:
    shapes = SHAPES if draws.difficulty > 0 else EASY_SHAPES
    shape = shapes[draws.first.integers(len(shapes))]
    z = draws.uniform((3.2, 7.5), (3.0, 8.5))
    x = draws.uniform((-0.85, 0.85)) * z * camera.reach
    return Solid(shape, x, z, _draw_half(draws, shape), draws.uniform((0, math.pi / 2), (0, 2 * math.pi)))


def _draw_half(draws: Draws, shape: str) -> tuple[float, float, float]:
    radius = draws.uniform((0.45, 0.95), (0.28, 1.0))
    if shape == "sphere":
        return radius, radius, radius
    if shape == "box":
        return radius * 0.9, draws.uniform((0.4, 0.95), (0.15, 1.2)), draws.uniform((0.4, 0.9), (0.2, 1.0))
    if shape == "torus":
        return radius * 0.9, radius * 0.9, radius * 0.9 * draws.uniform((0.2, 0.4))
    slenderness = draws.uniform((1.0, 1.7), (0.5, 2.2))
    radius *= 0.8
    return radius, radius * slenderness, radius
