"""Articulated figures: joints, the bones between them, and the limbs around the bones.

A figure's own axes are x (its right), y (up) and z (where it faces).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.world.geometry import Primitive
from lavin_dit.data.world.textures import Material

JOINT_NAMES = (
    "head",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
)
NUM_JOINTS = len(JOINT_NAMES)

BONES = ((0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13))
"""Pairs of joints that a limb connects."""

HEAD, NECK = 0, 1
RIGHT_ARM, LEFT_ARM = (2, 3, 4), (5, 6, 7)
RIGHT_LEG, LEFT_LEG = (8, 9, 10), (11, 12, 13)

HIP_WIDTH, SHOULDER_WIDTH = 0.062, 0.118
TORSO, NECK_RISE, HEAD_RISE = 0.285, 0.028, 0.105
THIGH, SHIN, UPPER_ARM, FOREARM, FOOT = 0.235, 0.235, 0.165, 0.15, 0.10
ANKLE = 0.042
"""Shares of the figure's height."""
FOREARM_RISE = 0.4
"""By how much of an arm's spread its forearm spreads further, a radian that the elbow is bent."""
REACH, STANCE = 0.3, 0.1
"""Shares of the figure's height: how much room it needs with its arms let down, and how far its feet are from its middle."""
JOINT_DEPTHS = (0.085, 0.05, 0.06, 0.045, 0.045, 0.06, 0.045, 0.045, 0.1, 0.06, 0.09, 0.1, 0.06, 0.09)
"""Shares of the figure's height: how much of its own flesh may lie before a joint that counts as seen."""
Point = tuple[float, float, float]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Outfit:
    """What the parts of a figure are painted with."""

    skin: Material
    hair: Material
    shirt: Material
    sleeves: Material
    trousers: Material
    shoes: Material


@dataclass(frozen=True)
class Limb:
    """A rod along a bone, of a figure of height one.

    `shares` say where on the way between the `bone`'s joints it begins and ends; `starts_beside` and `stops_beside` how far beside, to the
    figure's right, up its trunk and forwards; `reference` is a direction that it never takes; `cloth` a field of `Outfit`; limbs of one
    `face` are one smooth part.
    """

    bone: tuple[int, int]
    radius: float
    cloth: str
    face: int
    reference: Point = (1.0, 0.0, 0.0)
    shares: tuple[float, float] = (0.0, 1.0)
    starts_beside: Point = (0.0, 0.0, 0.0)
    stops_beside: Point = (0.0, 0.0, 0.0)


def _limbs_of_side(arm: tuple[int, int, int], leg: tuple[int, int, int], outwards: float, faces: tuple[int, int]) -> tuple[Limb, ...]:
    (shoulder, elbow, wrist), (hip, knee, ankle), sideways = arm, leg, (outwards, -0.2, 1.0)
    of_arm, of_leg = faces
    return (
        Limb((shoulder, hip), 0.064, "shirt", TRUNK, starts_beside=(-0.055 * outwards, -0.03, 0.0), stops_beside=(0.0, 0.03, 0.0)),
        Limb((shoulder, elbow), 0.036, "sleeves", of_arm, sideways),
        Limb((elbow, wrist), 0.030, "skin", of_arm, sideways),
        Limb((elbow, wrist), 0.034, "skin", of_arm, sideways, shares=(1.0, 1.15)),
        Limb((hip, knee), 0.052, "trousers", of_leg),
        Limb((knee, ankle), 0.042, "trousers", of_leg),
        Limb((ankle, ankle), 0.032, "shoes", of_leg, starts_beside=(0.0, -0.01, 0.0), stops_beside=(0.0, -0.01, FOOT)),
    )


FORWARDS = (0.0, 0.0, 1.0)
TRUNK, TOP = 0, 1
"""Faces; the arms and legs have the others."""
LIMBS = (
    Limb((HEAD, HEAD), 0.062, "skin", TOP, starts_beside=(0.0, -0.008, 0.0), stops_beside=(0.0, 0.012, 0.0)),
    Limb((HEAD, HEAD), 0.062, "hair", TOP, starts_beside=(0.0, 0.012, -0.012), stops_beside=(0.0, 0.026, -0.012)),
    Limb((NECK, HEAD), 0.030, "skin", TOP),
    Limb((RIGHT_ARM[0], LEFT_ARM[0]), 0.042, "shirt", TRUNK, FORWARDS),
    Limb((RIGHT_LEG[0], LEFT_LEG[0]), 0.058, "trousers", TRUNK, FORWARDS),
    *_limbs_of_side(RIGHT_ARM, RIGHT_LEG, 1.0, (2, 4)),
    *_limbs_of_side(LEFT_ARM, LEFT_LEG, -1.0, (3, 5)),
)
LIMB_BONES = np.array([limb.bone for limb in LIMBS])
LIMB_RADII = np.array([limb.radius for limb in LIMBS])
LIMB_SHARES = np.array([limb.shares for limb in LIMBS])
LIMB_OFFSETS = np.array([(limb.starts_beside, limb.stops_beside) for limb in LIMBS])
LIMB_REFERENCES = np.array([limb.reference for limb in LIMBS])


@dataclass(frozen=True)
class Pose:
    """Angles of the joints, right before left.

    Units: radians; `swing` turns a limb forwards, `spread` to its side, `bend` closes elbow or knee; `lean` tilts the trunk forwards.
    """

    leg_swing: tuple[float, float]
    leg_spread: tuple[float, float]
    knee_bend: tuple[float, float]
    arm_swing: tuple[float, float]
    arm_spread: tuple[float, float]
    elbow_bend: tuple[float, float]
    lean: float


@dataclass(frozen=True)
class Gait:
    """How a figure holds itself and moves.

    Units: radians; `stride` is the widest swing of a leg (zero stands still); `wave` the widest swing of the arms about their posture.
    """

    stride: float
    wave: float
    arm_spread: tuple[float, float]
    elbow_bend: tuple[float, float]
    lean: float

    def pose(self, phase: float) -> Pose:
        """At a phase of its step, in radians."""
        swing, lift = math.sin(phase), math.cos(phase)
        legs = self.stride * swing
        arms = (0.25 * self.stride + self.wave) * swing
        bends = (0.1 + 1.1 * self.stride * max(lift, 0.0), 0.1 + 1.1 * self.stride * max(-lift, 0.0))
        spreads = (self.arm_spread[0] + 0.5 * self.wave * lift, self.arm_spread[1] - 0.5 * self.wave * lift)
        return Pose((legs, -legs), (0.05, 0.05), bends, (-arms, arms), spreads, self.elbow_bend, self.lean)


@dataclass(frozen=True)
class Figure:
    """A person made of rods. Units: metres, radians; `yaw` zero faces away along z; `base` is the height of the ground below it."""

    x: float
    z: float
    yaw: float
    height: float
    gait: Gait
    phase: float
    outfit: Outfit
    base: float = 0.0

    @property
    def reach(self) -> float:
        """How much room it needs on the ground."""
        return REACH * self.height

    @property
    def stance(self) -> float:
        """How far its feet are from its middle."""
        return STANCE * self.height

    @cached_property
    def joints(self) -> Vector:
        """Where the joints are in the world. Shapes: (NUM_JOINTS, 3)."""
        return self._placed(self._posed)

    @cached_property
    def _posed(self) -> Vector:
        return _joints_of(self.gait.pose(self.phase))

    @property
    def limbs(self) -> tuple[tuple[Primitive, ...], tuple[Material, ...]]:
        """The rods around the bones, and what they are painted with."""
        ends = self._placed(_ends_of(self._posed))
        spans = ends[:, 1] - ends[:, 0]
        turns, halves = _turns_along(spans, self._turned(LIMB_REFERENCES)), np.sqrt((spans * spans).sum(axis=-1)) / 2
        rods = zip(ends.mean(axis=1).tolist(), halves.tolist(), (LIMB_RADII * self.height).tolist(), turns, LIMBS, strict=True)
        primitives = tuple(
            Primitive("capsule", (x, y, z), (radius, half + radius, radius), turn, limb.face)
            for (x, y, z), half, radius, turn, limb in rods
        )
        return primitives, tuple(getattr(self.outfit, limb.cloth) for limb in LIMBS)

    def _turned(self, vectors: Vector) -> Vector:
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = np.moveaxis(vectors, -1, 0)
        return np.stack([cosine * x + sine * z, y, cosine * z - sine * x], axis=-1)

    def _placed(self, points: Vector) -> Vector:
        return np.asarray(self._turned(points) * self.height + np.array([self.x, self.base, self.z]), np.float64)


def _joints_of(pose: Pose) -> Vector:
    """Joints of a figure of height one that stands on the origin."""
    rise, lean = math.cos(pose.lean), math.sin(pose.lean)
    trunk = {NECK: TORSO + NECK_RISE, HEAD: TORSO + NECK_RISE + HEAD_RISE}
    joints = {joint: (0.0, rise * length, lean * length) for joint, length in trunk.items()}
    for side, (arm, leg) in enumerate(((RIGHT_ARM, RIGHT_LEG), (LEFT_ARM, LEFT_LEG))):
        outwards = 1.0 - 2.0 * side
        swing, spread, bend = pose.arm_swing[side], pose.arm_spread[side], pose.elbow_bend[side]
        upper, lower = (swing, spread), (swing + bend * math.cos(spread), spread * (1 + FOREARM_RISE * bend))
        shoulder = (outwards * SHOULDER_WIDTH, rise * TORSO, lean * TORSO)
        joints |= _chain(arm, shoulder, outwards, ((UPPER_ARM, upper), (FOREARM, lower)))
        swing, spread, bend = pose.leg_swing[side], pose.leg_spread[side], pose.knee_bend[side]
        hip = (outwards * HIP_WIDTH, 0.0, 0.0)
        joints |= _chain(leg, hip, outwards, ((THIGH, (swing, spread)), (SHIN, (swing - bend, spread))))
    placed = np.array([joints[number] for number in range(NUM_JOINTS)])
    placed[:, 1] += ANKLE - min(joints[RIGHT_LEG[2]][1], joints[LEFT_LEG[2]][1])
    return placed


def _chain(
    numbers: tuple[int, int, int], root: Point, outwards: float, bones: tuple[tuple[float, tuple[float, float]], ...]
) -> dict[int, Point]:
    """The joints of an arm or leg: each bone has a length, a swing and a spread, and points down when both angles are zero."""
    joints = {numbers[0]: root}
    x, y, z = root
    for number, (length, (swing, spread)) in zip(numbers[1:], bones, strict=True):
        x += length * outwards * math.sin(spread)
        y -= length * math.cos(spread) * math.cos(swing)
        z += length * math.cos(spread) * math.sin(swing)
        joints[number] = (x, y, z)
    return joints


def _ends_of(joints: Vector) -> Vector:
    """Where each limb begins and ends. Shapes: (limbs, 2, 3)."""
    trunk = joints[NECK] - (joints[RIGHT_LEG[0]] + joints[LEFT_LEG[0]]) / 2
    rise, lean = (trunk[1:] / (TORSO + NECK_RISE)).tolist()
    frame = np.array([[1.0, 0.0, 0.0], [0.0, rise, lean], [0.0, -lean, rise]])
    bones = joints[LIMB_BONES]
    along = bones[:, :1] + (bones[:, 1:] - bones[:, :1]) * LIMB_SHARES[:, :, None]
    return np.asarray(along + LIMB_OFFSETS @ frame, np.float64)


def _turns_along(directions: Vector, references: Vector) -> Vector:
    """Turns whose y axis is the given direction and whose x axis is square to the reference. Shapes: (n, 3) to (n, 3, 3)."""
    along = directions / np.sqrt((directions * directions).sum(axis=-1, keepdims=True))
    across = _cross(along, references)
    across /= np.sqrt((across * across).sum(axis=-1, keepdims=True))
    return np.stack([across, along, _cross(across, along)], axis=1)


def _cross(a: Vector, b: Vector) -> Vector:
    """Shapes: two (n, 3) to (n, 3)."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
