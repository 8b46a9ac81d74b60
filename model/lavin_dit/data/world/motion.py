"""How a scene moves: solids glide, turn and hop, figures walk, a camera travels and tilts; drawn from (seed, index) alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from lavin_dit.data.world.camera import Camera
from lavin_dit.data.world.chance import between
from lavin_dit.data.world.figures import THIGH, Figure
from lavin_dit.data.world.layout import Layout, Solid, Takes, stand_apart

T = TypeVar("T")
MOTION_STREAM = 1
STILL_CHANCE = 0.3
"""Of a solid, and of the camera, to stay where it is."""
MIN_SPEED_M, MAX_SPEED_M = 0.06, 0.28
MAX_TURN = 0.2
NEAREST_M, FARTHEST_M = 2.6, 9.0
"""How far from the camera's first place things may glide."""
CAMERA_REACH_M, CAMERA_HEIGHTS_M, CAMERA_PITCHES = 1.4, (0.9, 2.8), (math.radians(2), math.radians(22))
"""Where the camera may travel: nearer than any solid, above the ground, with the horizon in sight."""
HOP_CHANCE, MAX_HOP_M, HOP_FRAMES = 0.3, 0.6, (6.0, 12.0)
"""In the hardest world."""
FIGURE_TURN = 0.35
"""A frame, while something is in a figure's way."""


@dataclass(frozen=True)
class Velocity:
    """Of one solid. Units: metres and radians a frame."""

    x: float
    z: float
    turn: float


@dataclass(frozen=True)
class Hop:
    """Of one solid that leaves the ground again and again. Units: metres; frames from one landing to the next."""

    height: float
    frames: float

    def rise(self, frame: int) -> float:
        """Height above the ground."""
        share = frame / self.frames % 1
        return 4 * self.height * share * (1 - share)


@dataclass(frozen=True)
class Travel:
    """Of the camera. Units: metres and radians a frame."""

    x: float
    z: float
    height: float
    pitch: float


def move(layout: Layout, seed: int, index: int, num_frames: int, *, difficulty: float = 0.0) -> Iterator[Layout]:
    """The layouts of consecutive frames, beginning with `layout` itself.

    Who would leave the scene, or come too close to another thing, turns round in place of taking that step.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, MOTION_STREAM])))
    velocities = [_draw_velocity(random) for _ in layout.solids]
    travel = _draw_travel(random, must_move=not any(velocity.x for velocity in velocities))
    paces = [between(random, 0.35, 0.6) for _ in layout.figures]
    hops = [_draw_hop(random, difficulty, solid) for solid in layout.solids]
    for frame in range(1, num_frames + 1):
        yield layout
        solids, figures = list(layout.solids), list(layout.figures)
        for number, velocity in enumerate(velocities):
            solids[number], velocities[number] = _glide([*_without(solids, number), *figures], solids[number], velocity)
            foot = layout.foot(solids[number].x, solids[number].z, solids[number].reach)
            solids[number] = replace(solids[number], base=foot + hops[number].rise(frame))
        for number, pace in enumerate(paces):
            walked = _walk([*solids, *_without(figures, number)], figures[number], pace)
            figures[number] = replace(walked, base=layout.foot(walked.x, walked.z, walked.stance))
        camera, travel = _advance(layout.camera, travel)
        layout = replace(layout, camera=camera, solids=tuple(solids), figures=tuple(figures))


def _without(things: list[T], number: int) -> list[T]:
    return things[:number] + things[number + 1 :]


def _draw_travel(random: np.random.Generator, *, must_move: bool) -> Travel:
    x, z = between(random, -0.09, 0.09), between(random, -0.05, 0.1)
    height, pitch = between(random, -0.02, 0.02), between(random, -0.008, 0.008)
    is_still = random.random() < STILL_CHANCE and not must_move
    return Travel(0.0, 0.0, 0.0, 0.0) if is_still else Travel(x, z, height, pitch)


def _draw_velocity(random: np.random.Generator) -> Velocity:
    heading, speed, turn = between(random, 0, 2 * math.pi), between(random, MIN_SPEED_M, MAX_SPEED_M), between(random, -MAX_TURN, MAX_TURN)
    if random.random() < STILL_CHANCE:
        return Velocity(0.0, 0.0, 0.0)
    return Velocity(speed * math.cos(heading), speed * math.sin(heading), turn)


def _draw_hop(random: np.random.Generator, difficulty: float, solid: Solid) -> Hop:
    """A cone stays on the ground: it has no base that could be seen."""
    is_hopping = random.random() < HOP_CHANCE * difficulty and solid.shape != "cone"
    return Hop(is_hopping * between(random, 0.2, MAX_HOP_M), between(random, *HOP_FRAMES))


def _glide(others: Sequence[Takes], solid: Solid, velocity: Velocity) -> tuple[Solid, Velocity]:
    turned = replace(solid, yaw=solid.yaw + velocity.turn)
    moved = replace(turned, x=solid.x + velocity.x, z=solid.z + velocity.z)
    if _is_free(moved, others):
        return moved, velocity
    return turned, replace(velocity, x=-velocity.x, z=-velocity.z)


def _walk(others: Sequence[Takes], figure: Figure, pace: float) -> Figure:
    """One frame of a step, `pace` radians long; the foot on the ground stays about where it is."""
    length = 4 * THIGH * figure.height * math.sin(figure.gait.stride) * pace / math.pi
    stepped = replace(figure, phase=figure.phase + pace)
    moved = replace(stepped, x=figure.x + length * math.sin(figure.yaw), z=figure.z + length * math.cos(figure.yaw))
    if length == 0 or _is_free(moved, others):
        return moved
    return replace(stepped, yaw=figure.yaw + FIGURE_TURN)


def _is_free(moved: Takes, others: Sequence[Takes]) -> bool:
    return NEAREST_M <= moved.z <= FARTHEST_M and all(stand_apart(moved, other) for other in others)


def _advance(camera: Camera, travel: Travel) -> tuple[Camera, Travel]:
    moved = replace(
        camera,
        x=camera.x + travel.x,
        z=camera.z + travel.z,
        height=camera.height + travel.height,
        pitch=camera.pitch + travel.pitch,
    )
    if (
        math.hypot(moved.x, moved.z) <= CAMERA_REACH_M
        and _lies_in(moved.height, CAMERA_HEIGHTS_M)
        and _lies_in(moved.pitch, CAMERA_PITCHES)
    ):
        return moved, travel
    return camera, Travel(-travel.x, -travel.z, -travel.height, -travel.pitch)


def _lies_in(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
