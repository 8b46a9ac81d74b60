"""Pascal VOC 2012: 20 classes of objects as masks and boxes; per-class masks make the Pascal-5i splits.

VOCdevkit/VOC2012/JPEGImages/*.jpg
VOCdevkit/VOC2012/{SegmentationClass,SegmentationObject}/*.png       palettes: 0 background, 255 the void around objects
VOCdevkit/VOC2012/Annotations/*.xml
VOCdevkit/VOC2012/ImageSets/{Segmentation,Main}/{train,val}.txt      which pictures have masks, and which boxes
"""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from lavin_dit.data.drawings.encodings import Box, draw_box, encode_labels, encode_mask
from lavin_dit.data.pixels import Picture
from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.readers.drawings import draw_foreground, draw_objects
from lavin_dit.data.readers.files import content_of, lines_of, need_file, need_folder, package, relative, top_of
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.readers.maps import Map, check_labels, read_map
from lavin_dit.data.readers.squares import Square, fill_nearest, open_photo
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.errors import InputError

LAYOUT = "Pascal VOC has VOCdevkit/VOC2012/ with JPEGImages, SegmentationClass, SegmentationObject, Annotations and ImageSets"
SPLITS: dict[str, Split] = {"train": "train", "val": "test"}
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
CLASS_TASKS = tuple(f"foreground-{name}" for name in CLASSES)
"""One task a class, so that the examples of an episode show which class is meant."""
PASCAL_5I = tuple(CLASS_TASKS[start : start + 5] for start in range(0, len(CLASSES), 5))
"""What each of the four folds holds out (prepare.held_out_tasks)."""
TASKS = ("semantic", "instances", "foreground", *CLASS_TASKS, "detection")
VOID = 255


def find(folder: Path) -> tuple[Item, ...]:
    """All pictures with masks or boxes, by their names; what any list calls val is held out.

    Raises: InputError where a list or a folder is missing.
    """
    top = top_of(folder, "VOCdevkit/VOC2012")
    need_folder(top / "JPEGImages", LAYOUT)
    masked = _listed(top, "Segmentation")
    boxed = _listed(top, "Main") if (top / "ImageSets" / "Main").is_dir() else {}
    place = relative(top, folder)
    return tuple(
        _item(place, name, "test" if "test" in (masked.get(name), boxed.get(name)) else "train", name in masked, name in boxed)
        for name in sorted(masked.keys() | boxed.keys())
    )


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The picture with what is asked for: masks where it has them, the largest box where it has boxes."""
    photo = open_photo(folder, item.part("photo"), request)
    square = Square.of(photo.size, request.resolution)
    targets: dict[str, Picture | None] = {}
    if item.part("classes") and request.tasks & {"semantic", *CLASS_TASKS}:
        targets |= _draw_classes(_read_filled(folder, item.part("classes"), photo, request, square), folder / item.part("classes"))
    if item.part("objects") and request.tasks & {"instances", "foreground"}:
        objects = _read_filled(folder, item.part("objects"), photo, request, square)
        targets |= {"instances": draw_objects(objects), "foreground": draw_foreground(objects)}
    if item.part("boxes") and "detection" in request.tasks:
        box = _largest(square, _read_boxes(folder, item.part("boxes")))
        targets["detection"] = None if box is None else draw_box(box, request.resolution, request.resolution)
    picture = square_picture(photo, request.resolution, is_nearest=False)
    return {task: ImagePair(picture, target) for task, target in targets.items() if task in request.tasks and target is not None}


def _read_filled(folder: Path, name: str, photo: Image.Image, request: Request, square: Square) -> Map:
    """A mask in the square, its void given to whatever is nearest: a narrow band around objects, most of it."""
    values = read_map(folder, name, photo, request)
    is_known = values != VOID
    if not is_known.any():
        raise InputError(f"{folder / name}: is nothing but void")
    filled, _ = fill_nearest(values, is_known)
    return square.pick(filled)


def _draw_classes(labels: Map, label: Path) -> dict[str, Picture | None]:
    check_labels(labels, len(CLASSES) + 1, str(label))
    present = set(np.unique(labels).tolist()) - {0}
    masks: dict[str, Picture | None] = {CLASS_TASKS[number - 1]: encode_mask(labels == number) for number in present}
    return {"semantic": encode_labels(labels), **masks}


def _largest(square: Square, boxes: list[Box]) -> Box | None:
    inside = [box for box in map(square.box, boxes) if box is not None]
    return max(inside, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


def _read_boxes(folder: Path, name: str) -> list[Box]:
    """The boxes of all objects that are not marked as difficult."""
    etree = package("defusedxml.ElementTree", reader="pascal_voc")
    errors = package("defusedxml", reader="pascal_voc")
    try:
        root = etree.fromstring(content_of(folder, name), forbid_dtd=True)
        return [_box_of(entry) for entry in root.iter("object") if entry.findtext("difficult", "0").strip() != "1"]
    except (etree.ParseError, errors.DefusedXmlException, ValueError, TypeError, AttributeError, LookupError) as error:
        raise InputError(f"{folder / name}: is no annotation of Pascal VOC, or is damaged ({error})") from error


def _box_of(entry: Any) -> Box:
    """Pascal VOC counts pixels from 1, and its box holds the last one too."""
    left, top, right, bottom = (float(entry.find("bndbox").findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    return left - 1, top - 1, right, bottom


def _listed(top: Path, kind: str) -> dict[str, Split]:
    folder = need_folder(top / "ImageSets" / kind, LAYOUT)
    return {name: split for subset, split in SPLITS.items() for name in lines_of(need_file(folder / f"{subset}.txt", LAYOUT))}


def _item(place: str, name: str, split: Split, is_masked: bool, is_boxed: bool) -> Item:
    masks = [("classes", f"SegmentationClass/{name}.png"), ("objects", f"SegmentationObject/{name}.png")] if is_masked else []
    boxes = [("boxes", f"Annotations/{name}.xml")] if is_boxed else []
    parts = [(part, str(PurePosixPath(place) / path)) for part, path in (("photo", f"JPEGImages/{name}.jpg"), *masks, *boxes)]
    return Item(split, scene_of("voc", parts[0][1]), parts[0][1], tuple(parts))
