"""How a scene moves: solids that glide and turn on the ground, and a camera that travels and tilts, drawn from (seed, index) alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lavin_dit.data.geometry import Solid
from lavin_dit.data.layout import Camera, Layout, stand_apart

MOTION_STREAM = 1
STILL_CHANCE = 0.3
"""Of a solid, and of the camera, to stay where it is."""
MIN_SPEED_M, MAX_SPEED_M = 0.06, 0.28
MAX_TURN = 0.2
NEAREST_M, FARTHEST_M = 2.6, 9.0
"""How far from the camera's first place solids may glide."""
CAMERA_REACH_M, CAMERA_HEIGHTS_M, CAMERA_PITCHES = 1.4, (0.9, 2.8), (math.radians(2), math.radians(22))
"""Where the camera may travel: nearer than any solid, above the ground, with the horizon in sight."""


@dataclass(frozen=True)
class Velocity:
    """Of one solid. Units: metres and radians a frame."""

    x: float
    z: float
    turn: float


@dataclass(frozen=True)
class Travel:
    """Of the camera. Units: metres and radians a frame."""

    x: float
    z: float
    height: float
    pitch: float


def move(layout: Layout, seed: int, index: int, num_frames: int) -> Iterator[Layout]:
    """The layouts of consecutive frames, beginning with `layout` itself.

    Who would leave the scene, or come too close to another solid, turns round in place of taking that step.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, MOTION_STREAM])))
    velocities = [_draw_velocity(random) for _ in layout.solids]
    travel = _draw_travel(random, must_move=not any(velocity.x for velocity in velocities))
    for _ in range(num_frames):
        yield layout
        solids = list(layout.solids)
        for number, velocity in enumerate(velocities):
            solids[number], velocities[number] = _glide(solids, number, velocity)
        camera, travel = _advance(layout.camera, travel)
        layout = replace(layout, camera=camera, solids=tuple(solids))


def _draw_travel(random: np.random.Generator, *, must_move: bool) -> Travel:
    x, z = random.uniform(-0.09, 0.09), random.uniform(-0.05, 0.1)
    height, pitch = random.uniform(-0.02, 0.02), random.uniform(-0.008, 0.008)
    is_still = random.uniform() < STILL_CHANCE and not must_move
    return Travel(0.0, 0.0, 0.0, 0.0) if is_still else Travel(x, z, height, pitch)


def _draw_velocity(random: np.random.Generator) -> Velocity:
    heading, speed, turn = random.uniform(0, 2 * math.pi), random.uniform(MIN_SPEED_M, MAX_SPEED_M), random.uniform(-MAX_TURN, MAX_TURN)
    if random.uniform() < STILL_CHANCE:
        return Velocity(0.0, 0.0, 0.0)
    return Velocity(speed * math.cos(heading), speed * math.sin(heading), turn)


def _glide(solids: list[Solid], number: int, velocity: Velocity) -> tuple[Solid, Velocity]:
    solid = solids[number]
    turned = replace(solid, yaw=solid.yaw + velocity.turn)
    moved = replace(turned, x=solid.x + velocity.x, z=solid.z + velocity.z)
    others = solids[:number] + solids[number + 1 :]
    if NEAREST_M <= moved.z <= FARTHEST_M and all(stand_apart(moved, other) for other in others):
        return moved, velocity
    return turned, replace(velocity, x=-velocity.x, z=-velocity.z)


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
