"""Figures as pictures of their skeletons, and the joints of such a picture.

A joint is a disc in a pure hue of its own, a bone a dull line: hue and chroma tell joints apart however blurred or dim they are.
Where discs overlap, each pixel belongs to the nearest joint, so that none is buried.

Shapes: joints (n, NUM_JOINTS, 3): x and y in pixels, whose centres are at integers + 0.5, and 1 where the joint is seen, else 0.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, maximum_filter, uniform_filter

from lavin_dit.data.drawings.hues import NUM_CORNERS, colour_of, hue_and_chroma
from lavin_dit.data.pixels import Picture
from lavin_dit.data.world.figures import BONES, JOINT_NAMES, NUM_JOINTS

Real = TypeVar("Real", bound=np.floating)

DISC_SHARE, LINE_SHARE = 1 / 32, 1 / 128
"""Radius of a disc, and half the width of a line, as shares of the picture's shorter side."""
MIN_DISC, MIN_LINE = 1.5, 0.5
LINE_WHITENESS, LINE_BRIGHTNESS = 0.6, 0.6

HUES = {
    "head": 6,
    "neck": 13,
    "right_shoulder": 9,
    "right_elbow": 3,
    "right_wrist": 0,
    "left_shoulder": 2,
    "left_elbow": 8,
    "left_wrist": 11,
    "right_hip": 7,
    "right_knee": 1,
    "right_ankle": 12,
    "left_hip": 4,
    "left_knee": 10,
    "left_ankle": 5,
}
"""Joints that may lie side by side are three hues apart and more: where two colours run together, no third joint appears between them."""
HUE_STEP = NUM_CORNERS / NUM_JOINTS
JOINT_HUES = np.array([HUES[name] * HUE_STEP for name in JOINT_NAMES], np.float32)
JOINT_COLOURS = 255.0 * colour_of(JOINT_HUES)
BONE_COLOURS = LINE_BRIGHTNESS * (LINE_WHITENESS * 255.0 + (1 - LINE_WHITENESS) * JOINT_COLOURS[[end for _, end in BONES]])
"""The hue of a bone is that of the joint at its far end."""
BONE_CHROMA = LINE_BRIGHTNESS * (1 - LINE_WHITENESS)

SQUARE_SHARE = 0.8
"""Half the side of the square that stands for a disc, as a share of its radius."""
LIT = 64
"""Brightest channel of the black around a figure."""
MIN_RESPONSE = 0.15
"""What makes a disc, where a whole and pure one has 1: a third of one does, and so does one that a model has drawn softly."""


@dataclass(frozen=True)
class Peaks:
    """Discs found in a picture, strongest first.

    `joints` are indices of `JOINT_NAMES`, `places` x and y in pixels, and discs of equal `pieces` hang together.
    Shapes: all (n,), `places` (n, 2).
    """

    joints: NDArray[np.intp]
    places: NDArray[np.float64]
    pieces: NDArray[np.intp]


def draw_skeletons(joints: NDArray[np.floating], height: int, width: int) -> Picture:
    """The bones between joints that are seen, and over them the discs of these joints, on black."""
    canvas = np.zeros((height, width, 3), np.float64)
    for figure in joints:
        for (start, end), colour in zip(BONES, BONE_COLOURS, strict=True):
            if figure[start, 2] > 0 and figure[end, 2] > 0:
                _draw_line(canvas, figure[start, :2], figure[end, :2], colour)
    _draw_discs(canvas, joints.reshape(-1, 3))
    return np.asarray(np.rint(canvas), np.uint8)


def find_joints(picture: Picture) -> NDArray[np.float32]:
    """The joints of one figure, each its strongest peak, or 0, 0, 0 where it has none: the inverse of `draw_skeletons` for one figure.

    A joint with a disc of its own comes back to within 0.1 pixels, one that shares a disc to within the disc. Shapes: to (NUM_JOINTS, 3).
    """
    peaks, joints = find_peaks(picture), np.zeros((NUM_JOINTS, 3), np.float32)
    for joint, place in zip(peaks.joints[::-1], peaks.places[::-1], strict=True):
        joints[joint] = (*place, 1.0)
    return joints


def find_peaks(picture: Picture) -> Peaks:
    """All discs of all joints: where a joint's hue fills a disc, and not what is around it."""
    radius = disc_radius(*picture.shape[:2])
    likeness = _likeness(picture)
    response = _respond(likeness, radius)
    is_peak = (response >= MIN_RESPONSE) & (response == maximum_filter(response, (1, *(2 * round(radius) + 1,) * 2)))
    found = np.argwhere(is_peak)[np.argsort(-response[is_peak], kind="stable")]
    places = np.array([_centre(likeness[joint], row, column, radius) for joint, row, column in found]).reshape(-1, 2)
    is_first = _first_of_neighbours(found[:, 0], places, radius)
    pieces, _ = label(picture.max(axis=-1) > LIT, np.ones((3, 3)))
    return Peaks(found[is_first, 0], places[is_first], pieces[found[is_first, 1], found[is_first, 2]])


def disc_radius(height: int, width: int) -> float:
    """The radius of a joint's disc. Units: pixels."""
    return max(MIN_DISC, min(height, width) * DISC_SHARE)


def _draw_line(canvas: NDArray[np.float64], start: NDArray[np.floating], end: NDArray[np.floating], colour: Picture) -> None:
    half = max(MIN_LINE, min(canvas.shape[:2]) * LINE_SHARE)
    window, x, y = _window(canvas, np.minimum(start, end), np.maximum(start, end), half + 1.0)
    along = end - start
    share = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-6), 0.0, 1.0)
    _blend(window, half - np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1]), colour)


def _draw_discs(canvas: NDArray[np.float64], joints: NDArray[np.floating]) -> None:
    """Each pixel takes the colour of the nearest joint, by how far it reaches into that joint's disc."""
    radius = disc_radius(*canvas.shape[:2])
    depth, colours = np.full(canvas.shape[:2], -np.inf), np.zeros_like(canvas)
    for index in np.flatnonzero(joints[:, 2] > 0):
        place = joints[index, :2]
        reach, x, y = _window(depth, place, place, radius + 1.0)
        inside = radius - np.hypot(x - place[0], y - place[1])
        is_nearest = inside > reach
        reach[is_nearest] = inside[is_nearest]
        _window(colours, place, place, radius + 1.0)[0][is_nearest] = JOINT_COLOURS[index % NUM_JOINTS]
    _blend(canvas, depth, colours)


def _window(
    canvas: NDArray[Real], low: NDArray[np.floating], high: NDArray[np.floating], margin: float
) -> tuple[NDArray[Real], NDArray[np.float64], NDArray[np.float64]]:
    """The part of a canvas around two corners, and the x and y of its pixels' centres."""
    size = canvas.shape[1::-1]
    (left, top), (right, bottom) = (np.clip(corner, 0, size).astype(int) for corner in (np.floor(low - margin), np.ceil(high + margin)))
    rows, columns = slice(top, bottom), slice(left, right)
    y, x = np.mgrid[rows, columns] + 0.5
    return canvas[rows, columns], x, y


def _blend(canvas: NDArray[np.float64], inside: NDArray[np.float64], colours: NDArray[np.float64] | Picture) -> None:
    """Lays colours over a canvas where pixels lie inside, with smooth edges. Units: `inside` pixels."""
    coverage = np.clip(inside + 0.5, 0.0, 1.0)[..., None]
    canvas += coverage * (colours - canvas)


def _likeness(picture: Picture) -> NDArray[np.float32]:
    """1 for a pixel of a joint's pure hue, 0 for one a step of hue away and for one no more colourful than a bone.

    Shapes: to (NUM_JOINTS, h, w).
    """
    hue, chroma = hue_and_chroma(picture)
    apart = np.abs(hue - JOINT_HUES[:, None, None])
    apart = np.minimum(apart, NUM_CORNERS - apart)
    likeness = np.maximum((1 - apart / np.float32(HUE_STEP)) * chroma - np.float32(BONE_CHROMA), 0) / np.float32(1 - BONE_CHROMA)
    return np.asarray(likeness, np.float32)


def _respond(likeness: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    """The mean likeness over a square as large as a disc, less the mean over the ring around it."""
    side = max(2 * int(radius * SQUARE_SHARE) + 1, 3)
    inner, outer = (uniform_filter(likeness, (1, size, size)) for size in (side, 2 * side + 1))
    share = side**2 / (2 * side + 1) ** 2
    return np.asarray(inner - (outer - share * inner) / (1 - share), np.float32)


def _first_of_neighbours(joints: NDArray[np.intp], places: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Peaks, strongest first, that lie on no stronger one of the same joint."""
    is_first = np.ones(len(joints), np.bool_)
    for index in range(1, len(joints)):
        is_near = np.hypot(*(places[:index] - places[index]).T) < radius
        is_first[index] = not (is_near & is_first[:index] & (joints[:index] == joints[index])).any()
    return is_first


def _centre(likeness: NDArray[np.float32], row: int, column: int, radius: float) -> tuple[float, float]:
    """The weighted centre, x and y, of what is like a joint around a peak."""
    window, x, y = _window(likeness, *(np.array([column, row]) + 0.5,) * 2, radius + 1.0)
    total = float(window.sum())
    return float((window * x).sum()) / total, float((window * y).sum()) / total
