"""Cityscapes: street scenes with fine annotations, 19 classes that are learned and objects one by one.

leftImg8bit/{train,val}/<city>/<name>_leftImg8bit.png
gtFine/{train,val}/<city>/<name>_gtFine_{labelIds,instanceIds}.png
"""

from pathlib import Path

import numpy as np

from lavin_dit.data.drawings.encodings import encode_labels
from lavin_dit.data.pixels import Picture
from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.readers.drawings import CROWD, draw_objects, renumber
from lavin_dit.data.readers.files import folders_in, need_folder, pictures_in, relative
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.readers.maps import Map, check_labels, read_map
from lavin_dit.data.readers.squares import Square, open_photo
from lavin_dit.data.tasks import ClipPair, ImagePair

LAYOUT = "Cityscapes has leftImg8bit/{train,val}/<city>/ with pictures and gtFine/{train,val}/<city>/ with their annotations"
SPLITS: dict[str, Split] = {"train": "train", "val": "test"}
TASKS = ("semantic", "instances")
ENDING = "_leftImg8bit"
LEARNED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 classes that are learned and measured, road to bicycle; all others are no class here (0)."""
GROUPED_IDS = (24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of classes whose objects are numbered, person to bicycle: bare, they are a group that is not told apart."""
NUM_IDS = 34
OBJECT_STEP = 1000
"""A numbered object is its label id times this, plus its number."""


def find(folder: Path) -> tuple[Item, ...]:
    """All pictures, city by city. Raises: InputError where a folder is missing."""
    return tuple(_item(folder, subset, path) for subset in SPLITS for path in _pictures(folder, subset))


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The picture with its classes and its objects, as far as they are asked for."""
    photo = open_photo(folder, item.part("photo"), request)
    square = Square.of(photo.size, request.resolution)
    picture = square_picture(photo, request.resolution, is_nearest=False)
    targets = {}
    for task, part, draw in (("semantic", "labels", _draw_classes), ("instances", "objects", _draw_numbered)):
        if task in request.tasks:
            values = square.pick(read_map(folder, item.part(part), photo, request))
            targets[task] = draw(values, str(folder / item.part(part)))
    return {task: ImagePair(picture, target) for task, target in targets.items() if target is not None}


def _draw_classes(ids: Map, label: str) -> Picture | None:
    check_labels(ids, NUM_IDS, label)
    return encode_labels(renumber(ids, {number: place for place, number in enumerate(LEARNED_IDS, 1)}))


def _draw_numbered(ids: Map, label: str) -> Picture | None:
    check_labels(ids, NUM_IDS * OBJECT_STEP, label)
    return draw_objects(np.where(np.isin(ids, GROUPED_IDS), CROWD, np.where(ids >= OBJECT_STEP, ids, 0)))


def _pictures(folder: Path, subset: str) -> list[Path]:
    need_folder(folder / "gtFine" / subset, LAYOUT)
    cities = folders_in(need_folder(folder / "leftImg8bit" / subset, LAYOUT))
    return [path for city in cities for path in pictures_in(city) if path.stem.endswith(ENDING)]


def _item(folder: Path, subset: str, path: Path) -> Item:
    name, city = relative(path, folder), path.parent.name
    stem = f"gtFine/{subset}/{city}/{path.stem.removesuffix(ENDING)}_gtFine"
    return Item(
        SPLITS[subset],
        scene_of("cityscapes", name),
        name,
        (("photo", name), ("labels", f"{stem}_labelIds.png"), ("objects", f"{stem}_instanceIds.png")),
    )
