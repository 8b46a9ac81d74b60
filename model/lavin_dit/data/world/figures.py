"""Articulated figures: their poses, and the joints that follow from them.

A figure's own axes are x (its right), y (up) and z (where it faces).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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

    @property
    def materials(self) -> tuple[Material, ...]:
        """All of them, in the order of their fields."""
        return tuple(vars(self).values())


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
        return np.asarray(self.stature + np.array([self.x, self.base, self.z]), np.float64)

    @cached_property
    def stature(self) -> Vector:
        """Where the joints are from the ground in the figure's middle. Shapes: (NUM_JOINTS, 3)."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = _joints_of(self.gait.pose(self.phase)).T
        return np.array([cosine * x + sine * z, y, cosine * z - sine * x]).T * self.height


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
