"""The limbs of figures: rods with round ends around the bones."""

import math
from dataclasses import dataclass, fields

import numpy as np

from lavin_dit.data.world.figures import (
    FOOT,
    HEAD,
    LEFT_ARM,
    LEFT_LEG,
    NECK,
    NECK_RISE,
    RIGHT_ARM,
    RIGHT_LEG,
    TORSO,
    Figure,
    Outfit,
    Point,
    Vector,
)
from lavin_dit.data.world.geometry import Primitives, gather_rods


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
BONE_ENDS = np.array([limb.bone for limb in LIMBS]).T.ravel()
SHARES = np.array([limb.shares for limb in LIMBS]).T
OFFSETS = np.array([(limb.starts_beside, limb.stops_beside) for limb in LIMBS]).T[:, :, None]
"""Shapes: (3, 2, 1, limbs)."""
REFERENCES = np.array([limb.reference for limb in LIMBS]).T
TRUNK_LENGTH = TORSO + NECK_RISE
RADII = np.array([limb.radius for limb in LIMBS])
FACES = np.array([limb.face for limb in LIMBS], np.uint8)
UPRIGHT = np.array([[0.0], [1.0], [0.0]])
CLOTHS = np.array([[field.name for field in fields(Outfit)].index(limb.cloth) for limb in LIMBS])
"""Numbers of each limb's material in its outfit."""


def rods_of(figure: Figure) -> Primitives:
    """The rods around a figure's bones, in the order of `LIMBS`."""
    sine, cosine = math.sin(figure.yaw), math.cos(figure.yaw)
    right, facing = np.array([cosine, 0.0, -sine]), np.array([sine, 0.0, cosine])
    starts, stops = _ends_of(figure, right)
    spans = stops - starts
    references = REFERENCES[0] * right[:, None] + REFERENCES[1] * UPRIGHT + REFERENCES[2] * facing[:, None]
    halves = np.sqrt((spans * spans).sum(axis=0)) / 2
    return gather_rods((starts + stops) / 2, _turns_along(spans / (2 * halves), references), RADII * figure.height, halves, FACES)


def _ends_of(figure: Figure, right: Vector) -> Vector:
    """Where limbs begin, and where they end. Shapes: (2, 3, limbs)."""
    joints = figure.joints
    up = (joints[NECK] - (joints[RIGHT_LEG[0]] + joints[LEFT_LEG[0]]) / 2) / (TRUNK_LENGTH * figure.height)
    frame = np.array([right, up, _cross(right, up)]) * figure.height
    first, last = joints.T.take(BONE_ENDS, axis=1).reshape(3, 2, -1).swapaxes(0, 1)
    along = first + (last - first) * SHARES[:, None]
    sideways, upwards, forwards = (axis[:, None] for axis in frame)
    return np.asarray(along + OFFSETS[0] * sideways + OFFSETS[1] * upwards + OFFSETS[2] * forwards, np.float64)


def _turns_along(along: Vector, references: Vector) -> Vector:
    """Turns whose y axis is the given direction and whose x axis is square to the reference. Shapes: (3, n) to (3, 3, n)."""
    across = _cross(along, references)
    across /= np.sqrt((across * across).sum(axis=0))
    return np.array([across, along, _cross(across, along)])


def _cross(a: Vector, b: Vector) -> Vector:
    """Shapes: two (3, n) to (3, n)."""
    (ax, ay, az), (bx, by, bz) = a, b
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
