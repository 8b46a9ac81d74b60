"""A person's keypoints in COCO, as the joints of our figures."""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.readers.squares import Square
from lavin_dit.data.world.figures import JOINT_NAMES, NUM_JOINTS

KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
HEAD, SHOULDERS = KEYPOINTS[:5], ("left_shoulder", "right_shoulder")
VISIBLE = 2


def joints_of(keypoints: list[int], square: Square) -> NDArray[np.float32]:
    """Our joints of one person in the square of the picture: the head amid its visible points, the neck amid both shoulders.

    Shapes: returns (NUM_JOINTS, 3): x, y, and 1 where the joint is seen. Units: pixels of the square.
    Raises: ValueError where there are not three numbers a keypoint.
    """
    values = np.array(keypoints, np.float64).reshape(len(KEYPOINTS), 3)
    points = dict(zip(KEYPOINTS, square.points(values[:, :2] + 0.5), strict=True))
    seen = dict(zip(KEYPOINTS, values[:, 2] == VISIBLE, strict=True))
    joints = np.zeros((NUM_JOINTS, 3), np.float32)
    for joint, name in zip(joints, JOINT_NAMES, strict=True):
        wanted = {"head": [point for point in HEAD if seen[point]], "neck": list(SHOULDERS)}.get(name, [name])
        if wanted:
            joint[:2] = np.mean([points[point] for point in wanted], axis=0)
            joint[2] = all(seen[point] for point in wanted) and bool((joint[:2] >= 0).all() and (joint[:2] < square.resolution).all())
    return joints
