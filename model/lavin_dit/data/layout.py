"""What a rendered scene holds, drawn from (seed, index) alone: camera, light, sky, ground, and solids that stand apart on it.

Classes have shape, size and colour cues, and the ground and the sky their own families of colours: a small model can learn such a world.
"""

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from lavin_dit.data.geometry import Solid

CLASSES = ("sky", "ground", "sphere", "box", "cylinder", "cone")
SHAPES = CLASSES[2:]
PATTERNS = ("plain", "plain", "checker", "bands", "panels")
GROUND_PATTERNS = ("plain", "checker", "checker", "bands", "patches")

HUES = {"sphere": 0.0, "box": 0.60, "cylinder": 0.36, "cone": 0.13}
HUE_SPREAD = 0.06
ANY_HUE_CHANCE = 0.1
MIN_SOLIDS, MAX_SOLIDS = 2, 5
PLACEMENT_TRIES = 60
MIN_GAP_M = 0.15

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A level camera that looks along z, tilted down by `pitch`; above the origin, unless it has moved.

    Units: metres, radians; `field_of_view` is the whole angle, equal across and down.
    """

    height: float
    pitch: float
    field_of_view: float
    x: float = 0.0
    z: float = 0.0


@dataclass(frozen=True)
class Material:
    """Two colours in [0, 1] in a pattern of cells.

    Units: `cell` metres; `phase` cells; `gloss` the strength of the highlight.
    """

    pattern: str
    first: Colour
    second: Colour
    cell: float
    phase: float
    gloss: float


@dataclass(frozen=True)
class Light:
    """A directional light (`towards` points at it, unit length), the light of the sky, and the sky's two colours."""

    towards: tuple[float, float, float]
    strength: float
    ambient: float
    zenith: Colour
    horizon: Colour


@dataclass(frozen=True)
class Layout:
    """Everything that rendering needs; `materials` go with `solids`."""

    camera: Camera
    light: Light
    ground: Material
    solids: tuple[Solid, ...]
    materials: tuple[Material, ...]


def draw_layout(seed: int, index: int) -> Layout:
    """The layout of scene `index`; equal arguments give equal layouts, on every machine and in every order."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
    camera = Camera(random.uniform(1.3, 2.3), math.radians(random.uniform(5, 17)), math.radians(random.uniform(46, 58)))
    solids = _draw_solids(random, camera)
    materials = tuple(_draw_material(random, solid.shape) for solid in solids)
    return Layout(camera, _draw_light(random), _draw_ground(random), solids, materials)


def _draw_light(random: np.random.Generator) -> Light:
    azimuth, elevation = random.uniform(0.6, 2 * math.pi - 0.6), math.radians(random.uniform(32, 62))
    towards = (math.cos(elevation) * math.sin(azimuth), math.sin(elevation), math.cos(elevation) * math.cos(azimuth))
    hue = random.uniform(0.55, 0.62)
    zenith = colorsys.hsv_to_rgb(hue, random.uniform(0.55, 0.8), random.uniform(0.65, 0.9))
    horizon = colorsys.hsv_to_rgb(hue, random.uniform(0.08, 0.25), random.uniform(0.88, 1.0))
    return Light(towards, random.uniform(0.75, 1.0), random.uniform(0.28, 0.4), zenith, horizon)


def _draw_ground(random: np.random.Generator) -> Material:
    dryness = random.uniform(0, 1)
    hue = 0.30 - 0.22 * dryness
    saturation, value = random.uniform(0.4, 0.6) - 0.15 * dryness, 0.5 + 0.32 * dryness
    first = colorsys.hsv_to_rgb(hue, saturation, value)
    second = colorsys.hsv_to_rgb(hue, saturation * 0.9, value * random.uniform(0.6, 0.8))
    return Material(str(random.choice(GROUND_PATTERNS)), first, second, random.uniform(0.7, 1.4), random.uniform(0, 1), 0.0)


def _draw_material(random: np.random.Generator, shape: str) -> Material:
    hue = HUES[shape] + random.uniform(-HUE_SPREAD, HUE_SPREAD)
    if random.uniform() < ANY_HUE_CHANCE:
        hue = random.uniform(0, 1)
    saturation, value = random.uniform(0.65, 0.95), random.uniform(0.7, 0.95)
    first = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    second = colorsys.hsv_to_rgb(hue % 1, saturation * random.uniform(0.2, 0.5), min(1.0, value * 1.15))
    return Material(str(random.choice(PATTERNS)), first, second, random.uniform(0.35, 0.6), random.uniform(0, 1), random.uniform(0.1, 0.5))


def _draw_solids(random: np.random.Generator, camera: Camera) -> tuple[Solid, ...]:
    wanted = int(random.integers(MIN_SOLIDS, MAX_SOLIDS + 1))
    solids: list[Solid] = []
    for _ in range(PLACEMENT_TRIES):
        solid = _draw_solid(random, camera)
        if all(stand_apart(solid, other) for other in solids):
            solids.append(solid)
        if len(solids) == wanted:
            break
    return tuple(solids)


def _draw_solid(random: np.random.Generator, camera: Camera) -> Solid:
    shape = SHAPES[random.integers(len(SHAPES))]
    z = random.uniform(3.2, 7.5)
    x = random.uniform(-0.85, 0.85) * z * math.tan(camera.field_of_view / 2)
    return Solid(shape, x, z, _draw_half(random, shape), random.uniform(0, math.pi / 2))


def _draw_half(random: np.random.Generator, shape: str) -> tuple[float, float, float]:
    radius = random.uniform(0.45, 0.95)
    if shape == "sphere":
        return radius, radius, radius
    if shape == "box":
        return radius * 0.9, random.uniform(0.4, 0.95), random.uniform(0.4, 0.9)
    slenderness = random.uniform(1.0, 1.7)
    radius *= 0.8
    return radius, radius * slenderness, radius


def stand_apart(a: Solid, b: Solid) -> bool:
    """Whether two solids leave a gap between them, however they are turned."""
    reach = math.hypot(a.half[0], a.half[2]) + math.hypot(b.half[0], b.half[2])
    return math.hypot(a.x - b.x, a.z - b.z) > reach * 0.85 + MIN_GAP_M
