"""The table of tasks: how each turns a rendered scene, or any photograph, into an input picture and a target picture.

A new task is one entry of `TASKS`, and a function where none of the present ones fits.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from lavin_dit.data import degradations, encodings
from lavin_dit.data.encodings import Picture
from lavin_dit.data.scenes import FIRST_SOLID, Scene

Kind = Literal["depth", "normals", "labels", "mask", "edges", "image"]
Degrade = Callable[[Picture, np.random.Generator], Picture]

NEAREST_KINDS: frozenset[Kind] = frozenset({"labels", "mask", "edges"})
"""Targets whose values must never be mixed when they are resized."""

EDGE_REFERENCE_SIZE = 64


@dataclass(frozen=True)
class ImagePair:
    """An input picture and the target picture that answers it. Shapes: (h, w, 3) uint8, equal sizes."""

    input: Picture
    target: Picture


@dataclass(frozen=True)
class Task:
    """One thing to learn, told by pairs of pictures.

    `kind` says how targets are encoded and measured. A dense task has `draw`, which pictures a map of a rendered scene as the target
    of the scene's picture; a restoration task has `degrade`, which spoils any picture into the input of itself. A task with neither
    lives on the user's own pairs.
    """

    name: str
    title: str
    summary: str
    kind: Kind
    draw: Callable[[Scene], Picture] | None = None
    degrade: Degrade | None = None

    @property
    def from_photo(self) -> bool:
        """Whether pairs can be derived from any photograph."""
        return self.degrade is not None

    @property
    def from_scene(self) -> bool:
        """Whether pairs can be derived from a rendered scene."""
        return self.draw is not None or self.degrade is not None


def generator_of(seed: int, task: str, scene: str) -> np.random.Generator:
    """The randomness of one pair: depends on these three alone, so that no pair's noise depends on what else is prepared."""
    digest = hashlib.sha256(f"{seed}/{task}/{scene}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


def pair_of_scene(task: Task, scene: Scene, generator: np.random.Generator) -> ImagePair:
    """The pair that a task derives from a rendered scene."""
    if task.draw is not None:
        return ImagePair(scene.rgb, task.draw(scene))
    return pair_of_photo(task, scene.rgb, generator)


def pair_of_photo(task: Task, photo: Picture, generator: np.random.Generator) -> ImagePair:
    """The pair that a restoration task derives from a photograph: the spoilt picture, and the clean one."""
    assert task.degrade is not None, f"{task.name} cannot be derived from a photograph"
    return ImagePair(task.degrade(photo, generator), photo)


def task_of(name: str) -> Task:
    """The task of a name; an unknown one, such as the user's own folder of pairs, maps pictures to pictures."""
    return TASKS.get(name) or Task(name, name.replace("_", " ").capitalize(), f"The user's own pairs, {name}.", "image")


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


def _draw_depth(scene: Scene) -> Picture:
    return encodings.encode_depth(scene.depth)


def _draw_normals(scene: Scene) -> Picture:
    return encodings.encode_normals(scene.normals)


def _draw_foreground(scene: Scene) -> Picture:
    return encodings.encode_mask(scene.instances >= FIRST_SOLID)


def _draw_classes(scene: Scene) -> Picture:
    return encodings.encode_labels(scene.classes)


def _draw_edges(scene: Scene) -> Picture:
    return encodings.encode_edges(find_edges(scene))


def _table(tasks: Iterable[Task]) -> dict[str, Task]:
    return {task.name: task for task in tasks}


TASKS = _table(
    [
        Task("depth", "Depth", "Distance along the optical axis, near white and far black.", "depth", draw=_draw_depth),
        Task("normals", "Surface normals", "Which way each surface faces, in camera space.", "normals", draw=_draw_normals),
        Task("foreground", "Foreground", "Objects white, everything else black.", "mask", draw=_draw_foreground),
        Task("semantic", "Semantic segmentation", "Each pixel's class, a colour a class.", "labels", draw=_draw_classes),
        Task("edges", "Edges", "Outlines and creases of the geometry.", "edges", draw=_draw_edges),
        Task("colorization", "Colorization", "Colours for a grey picture.", "image", degrade=degradations.remove_colour),
        Task("inpainting", "Inpainting", "What the grey holes hide.", "image", degrade=degradations.cut_holes),
        Task("denoising", "Denoising", "The picture beneath photon and read-out noise.", "image", degrade=degradations.add_noise),
        Task("deblurring", "Deblurring", "The sharp picture behind a blurred one.", "image", degrade=degradations.blur),
        Task(
            "super_resolution", "Super-resolution", "Detail for a picture at an eighth of its size.", "image", degrade=degradations.shrink
        ),
    ]
)
