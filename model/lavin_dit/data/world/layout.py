"""What a rendered scene holds: camera, lights, sky, ground, solids that stand apart on it, and figures among them."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from lavin_dit.data.world.camera import Camera
from lavin_dit.data.world.figures import Figure
from lavin_dit.data.world.geometry import Primitive
from lavin_dit.data.world.terrain import Terrain
from lavin_dit.data.world.textures import Colour, Material

CLASSES = ("sky", "ground", "sphere", "box", "cylinder", "cone", "torus", "figure")
EASY_SHAPES = CLASSES[2:6]
SHAPES = CLASSES[2:7]

MIN_GAP_M = 0.15
HAZE_M = 45.0
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class World:
    """Which scenes there are.

    `difficulty` in [0, 1] widens shapes, textures, lights, the ground and the numbers of things; at zero a small model can learn the world,
    for its classes have shape, size and colour cues, and the ground and the sky their own families of colours. `figures` puts at least one
    whole articulated figure into every scene.
    """

    difficulty: float = 0.0
    figures: bool = False

    def __post_init__(self) -> None:
        assert 0 <= self.difficulty <= 1, f"difficulty is {self.difficulty}, not in [0, 1]"


EASY = World()
"""Small models learn on it."""


@dataclass(frozen=True)
class Solid:
    """A shape that stands on the ground: where, how large, and turned by how much about the vertical.

    Units: `half` holds half of the width, height and depth in metres; `yaw` radians; `base` the height of its foot in metres.
    """

    shape: str
    x: float
    z: float
    half: tuple[float, float, float]
    yaw: float
    base: float = 0.0

    @property
    def reach(self) -> float:
        """How far from its centre it gets on the ground, however it is turned."""
        return math.hypot(self.half[0], self.half[2])

    @property
    def primitive(self) -> Primitive:
        """The solid as the rays meet it."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        turn = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        return Primitive(self.shape, (self.x, self.base + self.half[1], self.z), self.half, turn)


@dataclass(frozen=True)
class Lamp:
    """A directional light: `towards` points at it, unit length; `strength` is its share of linear light."""

    towards: tuple[float, float, float]
    colour: Colour
    strength: float


@dataclass(frozen=True)
class Light:
    """The sun (`towards` points at it, unit length), the light of the sky, and the sky's two colours.

    Units: `haze_m` metres at which most of a surface's own colour is lost; `clouds` the share of the sky that clouds whiten, drawn at
    `cloud_place` of a sky without end.
    """

    towards: tuple[float, float, float]
    strength: float
    ambient: float
    zenith: Colour
    horizon: Colour
    haze_m: float = HAZE_M
    clouds: float = 0.0
    cloud_place: float = 0.0

    @property
    def sun(self) -> Lamp:
        """The sun alone."""
        return Lamp(self.towards, WHITE, self.strength)


@dataclass(frozen=True)
class Layout:
    """Everything that rendering needs; `materials` go with `solids`, `lamps` shine beside the sun.

    Every pixel is sampled several times where `is_sampled_everywhere`; else only pixels that differ from a neighbour.
    """

    camera: Camera
    light: Light
    ground: Material
    solids: tuple[Solid, ...]
    materials: tuple[Material, ...]
    lamps: tuple[Lamp, ...] = ()
    terrain: Terrain | None = None
    figures: tuple[Figure, ...] = ()
    is_sampled_everywhere: bool = True

    @property
    def all_lamps(self) -> tuple[Lamp, ...]:
        """The sun, then the others."""
        return (self.light.sun, *self.lamps)

    def foot(self, x: float, z: float, reach: float) -> float:
        """The height at which something of this reach stands on the ground without a gap."""
        return 0.0 if self.terrain is None else self.terrain.lowest(x, z, reach)


class Takes(Protocol):
    """What takes up room on the ground."""

    @property
    def x(self) -> float: ...
    @property
    def z(self) -> float: ...
    @property
    def reach(self) -> float: ...


class Spot(NamedTuple):
    """Room for something. Units: metres."""

    x: float
    z: float
    reach: float


def stand_apart(a: Takes, b: Takes) -> bool:
    """Whether two things leave a gap between them, however they are turned."""
    return math.hypot(a.x - b.x, a.z - b.z) > (a.reach + b.reach) * 0.85 + MIN_GAP_M
