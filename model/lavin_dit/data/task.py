"""What a task is, and the pairs that it makes of a rendered scene, a moving scene, or any photograph."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.pixels import Clip, Picture
from lavin_dit.data.world.clips import MovingScene
from lavin_dit.data.world.scenes import Scene

Kind = Literal["depth", "normals", "labels", "instances", "mask", "edges", "image", "flow", "keypoints", "boxes"]
Medium = Literal["image", "clip"]
Depth = NDArray[np.float32]
View = Callable[[Scene], Picture]
ClipView = Callable[[MovingScene], Clip]
FrameChoice = Callable[[int], range]
"""Some of a number of frames."""
Degrade = Callable[[Picture, Depth | None, np.random.Generator], Picture]

PHOTOGRAPHIC_KIND: Kind = "image"
"""The only kind of picture that is looked at rather than decoded."""
NEAREST_KINDS: frozenset[Kind] = frozenset({"labels", "instances", "mask", "edges", "flow", "keypoints", "boxes"})
"""Pictures whose colours must never be mixed when they are resized."""


@dataclass(frozen=True)
class ImagePair:
    """An input picture and the target picture that answers it. Shapes: (h, w, 3) uint8, equal sizes."""

    input: Picture
    target: Picture


@dataclass(frozen=True)
class ClipPair:
    """An input clip and the target clip that answers it. Shapes: (t, h, w, 3) uint8, equal sizes, t = 1 + 4k."""

    input: Clip
    target: Clip


@dataclass(frozen=True)
class Task:
    """One thing to learn, told by pairs of pictures or of clips.

    `kind` says how targets are encoded and measured, frame by frame in a clip; `input_kind` how inputs are drawn; `input` and `target` say
    both in words. Pairs come from `views` or `clip_views`, which show a (moving) scene as the input and as the target, or from `degrade`,
    which spoils any picture into the input of itself. A task with none of them lives on the user's own pairs. `unknown_frames` are those
    that a video task's input lacks: they are its answer, the others are given.
    """

    name: str
    title: str
    summary: str
    kind: Kind
    medium: Medium = "image"
    input: str = "A picture."
    target: str = "A picture."
    input_kind: Kind = PHOTOGRAPHIC_KIND
    views: tuple[View, View] | None = None
    clip_views: tuple[ClipView, ClipView] | None = None
    unknown_frames: FrameChoice | None = None
    degrade: Degrade | None = None
    needs_figures: bool = False

    @property
    def from_photo(self) -> bool:
        """Whether pairs can be derived from any photograph."""
        return self.degrade is not None

    @property
    def from_scene(self) -> bool:
        """Whether pairs can be derived from a rendered scene."""
        return self.views is not None or self.degrade is not None

    @property
    def from_clip(self) -> bool:
        """Whether pairs can be derived from a moving scene."""
        return self.clip_views is not None


def generator_of(seed: int, task: str, scene: str) -> np.random.Generator:
    """The randomness of one pair: depends on these three alone, so that no pair's noise depends on what else is prepared."""
    digest = hashlib.sha256(f"{seed}/{task}/{scene}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


def pair_of_scene(task: Task, scene: Scene, generator: np.random.Generator) -> ImagePair:
    """The pair that a task derives from a rendered scene."""
    if task.degrade is not None:
        return ImagePair(task.degrade(scene.rgb, scene.depth, generator), scene.rgb)
    assert task.views is not None, f"{task.name} cannot be derived from a scene"
    show_input, show_target = task.views
    return ImagePair(show_input(scene), show_target(scene))


def pair_of_photo(task: Task, photo: Picture, generator: np.random.Generator) -> ImagePair:
    """The pair that a restoration task derives from a photograph: the spoilt picture, and the clean one."""
    assert task.degrade is not None, f"{task.name} cannot be derived from a photograph"
    return ImagePair(task.degrade(photo, None, generator), photo)


def pair_of_clip(task: Task, moving_scene: MovingScene, _generator: np.random.Generator) -> ClipPair:
    """The pair that a video task derives from a moving scene."""
    assert task.clip_views is not None, f"{task.name} cannot be derived from a moving scene"
    show_input, show_target = task.clip_views
    return ClipPair(show_input(moving_scene), show_target(moving_scene))
