"""Pairs of one picture of COCO 2017: what its polygons, run-length codes, panoptic map and keypoints say, in its central square."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.data.drawings.encodings import Box, draw_skeletons, encode_labels
from lavin_dit.data.pixels import Picture
from lavin_dit.data.raw.images import decode_image, square_picture
from lavin_dit.data.readers.coco_index import FILES, as_published
from lavin_dit.data.readers.coco_masks import mask_in_square
from lavin_dit.data.readers.coco_people import joints_of
from lavin_dit.data.readers.drawings import CROWD, draw_foreground, draw_largest_box, draw_objects, renumber
from lavin_dit.data.readers.files import content_of
from lavin_dit.data.readers.item import Item, Request
from lavin_dit.data.readers.json_spans import read_spans
from lavin_dit.data.readers.maps import check_size_of
from lavin_dit.data.readers.squares import Square, open_photo
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.errors import InputError

JOINTS_NEEDED = 5
"""Of each person: fewer seen joints than these are no pose."""


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The pairs that a picture's annotations give; its photograph is decoded once."""
    photo = open_photo(folder, item.part("photo"), request)
    size = f"{photo.width}x{photo.height}"
    if size != item.part("size"):
        raise InputError(f"{folder / item.part('photo')}: is {size}, but its annotations are of a picture of {item.part('size')}")
    annotated = _Annotated(folder, item, photo, request)
    targets = {task: draw(annotated) for task, draw in DRAWS.items() if task in request.tasks}
    picture = square_picture(photo, request.resolution, is_nearest=False)
    return {task: ImagePair(picture, target) for task, target in targets.items() if target is not None}


@dataclass(frozen=True)
class _Annotated:
    """One picture with its annotations; what they do not say is not drawn (None)."""

    folder: Path
    item: Item
    photo: Image.Image
    request: Request

    @cached_property
    def square(self) -> Square:
        return Square.of(self.photo.size, self.request.resolution)

    @cached_property
    def segments(self) -> NDArray[np.int32]:
        """The number of the panoptic segment at each pixel: red + 256 green + 256² blue."""
        name = self.item.part("panoptic")
        content = content_of(self.folder, name)
        picture = np.asarray(decode_image(content, label=str(self.folder / name), max_megapixels=self.request.max_megapixels))
        check_size_of(picture, self.photo, str(self.folder / name))
        return np.asarray(self.square.pick(picture).astype(np.int32) @ np.array([1, 256, 65536], np.int32), np.int32)

    @cached_property
    def things(self) -> NDArray[np.int32]:
        """Objects numbered from 1, crowds `CROWD`, all else 0: of the panoptic map where there is one, of the outlines otherwise."""
        if self.item.part("panoptic"):
            roles = {number: role for number, _, role in self._listed_segments()}
            things = {
                number: CROWD if role == "crowd" else place for place, (number, role) in enumerate(roles.items(), 1) if role != "stuff"
            }
            return renumber(self.segments, things)
        return self._painted_outlines()

    def draw_semantic(self) -> Picture | None:
        if not self.item.part("panoptic"):
            return None
        return encode_labels(renumber(self.segments, {number: label for number, label, _ in self._listed_segments()}))

    def draw_instances(self) -> Picture | None:
        return draw_objects(self.things)

    def draw_foreground(self) -> Picture | None:
        return draw_foreground(self.things)

    def draw_detection(self) -> Picture | None:
        return draw_largest_box(self.things)

    def draw_pose(self) -> Picture | None:
        """The skeletons of all people in the square, if each shows enough of theirs and nobody is in a crowd."""
        people, path = self._annotations("people")
        with as_published(path, f"a person in {self.item.label}"):
            inside = [person for person in people if self.square.box(corners_of(person["bbox"])) is not None]
            if not inside or any(person["iscrowd"] for person in inside):
                return None
            joints = np.stack([joints_of(person["keypoints"], self.square) for person in inside])
        if joints[:, :, 2].sum(axis=1).min() < JOINTS_NEEDED:
            return None
        return draw_skeletons(joints, self.request.resolution, self.request.resolution)

    def _painted_outlines(self) -> NDArray[np.int32]:
        """Small objects over large ones, crowds below all."""
        objects, path = self._annotations("instances")
        with as_published(path, f"an object in {self.item.label}"):
            masks = [(mask_in_square(entry["segmentation"], self.photo.size, self.square), bool(entry["iscrowd"])) for entry in objects]
        painted = np.zeros((self.request.resolution, self.request.resolution), np.int32)
        for number, (mask, is_crowd) in enumerate(sorted(masks, key=lambda found: (not found[1], -found[0].sum())), 1):
            painted[mask] = CROWD if is_crowd else number
        return painted

    def _annotations(self, part: str) -> tuple[list[dict[str, Any]], Path]:
        subset = self.item.label.partition("/")[0]
        path = self.folder / "annotations" / f"{FILES[part]}_{subset}.json"
        return read_spans(path, self.item.part(part).split()), path

    def _listed_segments(self) -> list[tuple[int, int, str]]:
        triples = (segment.split(":") for segment in self.item.part("segments").split())
        return [(int(number), int(label), role) for number, label, role in triples]


DRAWS: dict[str, Callable[[_Annotated], Picture | None]] = {
    "semantic": _Annotated.draw_semantic,
    "instances": _Annotated.draw_instances,
    "foreground": _Annotated.draw_foreground,
    "detection": _Annotated.draw_detection,
    "pose": _Annotated.draw_pose,
}
TASKS = tuple(DRAWS)


def corners_of(box: list[float]) -> Box:
    """The corners of one of COCO's boxes, which are left, top, width and height."""
    left, top, width, height = (float(value) for value in box)
    return left, top, left + width, top + height
