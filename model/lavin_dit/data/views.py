"""What a rendered scene, or a moving one, looks like to a task: its picture, and its exact maps drawn as pictures.

Shapes: pictures (h, w, 3) uint8, clips (t, h, w, 3) uint8.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from lavin_dit.data.drawings import encodings
from lavin_dit.data.drawings.encodings import Box
from lavin_dit.data.pixels import Clip, Picture
from lavin_dit.data.task import FrameChoice, View
from lavin_dit.data.world.clips import MovingScene
from lavin_dit.data.world.scenes import FIRST_SOLID, Scene

EDGE_REFERENCE_SIZE = 64
UNKNOWN_GREY = 128


def show_picture(scene: Scene) -> Picture:
    """The scene as the camera sees it."""
    return scene.rgb


def show_albedo(scene: Scene) -> Picture:
    """The colours of the surfaces alone, free of light and shadow."""
    return scene.albedo


def show_shadowless(scene: Scene) -> Picture:
    """The picture with every cast shadow lit."""
    return scene.shadowless


def show_depth(scene: Scene) -> Picture:
    """Depth, drawn by `encode_depth`."""
    return encodings.encode_depth(scene.depth)


def show_normals(scene: Scene) -> Picture:
    """Surface normals, drawn by `encode_normals`."""
    return encodings.encode_normals(scene.normals)


def show_classes(scene: Scene) -> Picture:
    """The class of each pixel, drawn by `encode_labels`."""
    return encodings.encode_labels(scene.classes)


def show_instances(scene: Scene) -> Picture:
    """Each object in a colour of its own, drawn by `encode_instances`; sky and ground are background."""
    return encodings.encode_instances(objects_of(scene))


def show_foreground(scene: Scene) -> Picture:
    """Objects white, everything else black."""
    return encodings.encode_mask(scene.instances >= FIRST_SOLID)


def show_edges(scene: Scene) -> Picture:
    """Outlines and creases, white on black."""
    return encodings.encode_edges(find_edges(scene))


def show_largest_box(scene: Scene) -> Picture:
    """The box of the object that covers most of the picture, drawn by `draw_box`; black where there is no object."""
    height, width = scene.instances.shape
    box = find_largest_box(scene)
    return np.zeros_like(scene.rgb) if box is None else encodings.draw_box(box, height, width)


def show_pose(scene: Scene) -> Picture:
    """The skeletons of the figures, drawn by `draw_skeletons`."""
    height, width = scene.instances.shape
    return encodings.draw_skeletons(scene.joints, height, width)


def objects_of(scene: Scene) -> NDArray[np.uint8]:
    """The instance numbers with sky and ground, which are no objects, as 0."""
    return np.where(scene.instances >= FIRST_SOLID, scene.instances, np.uint8(0))


def find_edges(scene: Scene) -> NDArray[np.bool_]:
    """Where instances or their smooth faces meet, exact; two pixels thick at 64 pixels a side, and in proportion above."""
    surfaces = scene.instances.astype(np.int32) * 256 + scene.faces
    edges = np.zeros(surfaces.shape, np.bool_)
    is_step_down, is_step_right = surfaces[1:] != surfaces[:-1], surfaces[:, 1:] != surfaces[:, :-1]
    edges[1:] |= is_step_down
    edges[:-1] |= is_step_down
    edges[:, 1:] |= is_step_right
    edges[:, :-1] |= is_step_right
    extra = scene.instances.shape[0] // EDGE_REFERENCE_SIZE - 1
    return np.asarray(binary_dilation(edges, iterations=extra), np.bool_) if extra > 0 else edges


def find_largest_box(scene: Scene) -> Box | None:
    """x0, y0, x1, y1 around what is seen of the object with the most pixels; of equals the first one. None without an object.

    Units: pixels; corners of pixels are whole numbers.
    """
    counts = np.bincount(scene.instances.ravel(), minlength=FIRST_SOLID + 1)[FIRST_SOLID:]
    if not counts.any():
        return None
    is_object = scene.instances == FIRST_SOLID + counts.argmax()
    rows, columns = np.flatnonzero(is_object.any(axis=1)), np.flatnonzero(is_object.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def show_clip(moving_scene: MovingScene) -> Clip:
    """The moving scene as the camera sees it."""
    return show_every_frame(moving_scene, view=show_picture)


def show_every_frame(moving_scene: MovingScene, *, view: View) -> Clip:
    """The clip of what a view shows of each frame."""
    return np.stack([view(scene) for scene in moving_scene.frames])


def show_known_frames(moving_scene: MovingScene, *, unknown: FrameChoice) -> Clip:
    """The clip with its unknown frames grey."""
    return hide_frames(show_clip(moving_scene), unknown)


def hide_frames(clip: Clip, unknown: FrameChoice) -> Clip:
    """A clip whose unknown frames are grey. Shapes: (t, h, w, 3) uint8."""
    hidden = clip.copy()
    hidden[unknown(len(clip))] = UNKNOWN_GREY
    return hidden


def show_object_tracks(moving_scene: MovingScene) -> Clip:
    """Each object in a colour that it keeps, drawn by `encode_instance_clip`."""
    return encodings.encode_instance_clip(np.stack([objects_of(scene) for scene in moving_scene.frames]))


def show_flow(moving_scene: MovingScene) -> Clip:
    """Where each pixel goes in the next frame, drawn by `encode_flow`."""
    return np.stack([encodings.encode_flow(flow) for flow in moving_scene.flows])


def later_frames(num_frames: int) -> range:
    """All frames but the first quarter, rounded up, which is enough to see motion in: of 1 + 4k frames the last 3k."""
    return range(-(-num_frames // 4), num_frames)


def frames_between(num_frames: int) -> range:
    """All frames but the first and the last."""
    return range(1, num_frames - 1)
