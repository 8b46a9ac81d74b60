"""COCO's annotation files, read once: which pictures there are, and where each one's annotations lie."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavin_dit.data.drawings.encodings import PALETTE
from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.readers.coco_people import KEYPOINTS
from lavin_dit.data.readers.files import need_folder, parts_of
from lavin_dit.data.readers.item import Item, Split
from lavin_dit.data.readers.json_spans import entries_of
from lavin_dit.errors import InputError

LAYOUT = "COCO has train2017/ and val2017/ with pictures, and annotations/ with instances_*, panoptic_* or person_keypoints_*.json"
SPLITS: dict[str, Split] = {"train2017": "train", "val2017": "test"}
FILES = {"instances": "instances", "people": "person_keypoints", "panoptic": "panoptic"}
"""What each part's annotation files are called, before the name of their pictures' folder."""
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What an annotation raises that is not as COCO's are."""


@dataclass
class _Index:
    """What the annotation files of one folder of pictures say so far, by the number of the picture."""

    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, str] = field(default_factory=dict)
    parts: dict[str, defaultdict[int, list[str]]] = field(default_factory=dict)

    def add_photo(self, value: dict[str, Any]) -> None:
        self.names[int(value["id"])] = str(value["file_name"])
        self.sizes[int(value["id"])] = f"{int(value['width'])}x{int(value['height'])}"

    def begin(self, part: str) -> defaultdict[int, list[str]]:
        return self.parts.setdefault(part, defaultdict(list))


def find(folder: Path) -> tuple[Item, ...]:
    """All pictures that an annotation file lists, by their names.

    Raises: InputError where there are no annotation files, or one is damaged.
    """
    need_folder(folder / "annotations", LAYOUT)
    items = [item for subset in SPLITS for item in _find_in(folder, subset)]
    if not items:
        raise InputError(f"{folder / 'annotations'}: holds none of COCO's annotation files: {LAYOUT}")
    return tuple(items)


def _find_in(folder: Path, subset: str) -> list[Item]:
    index = _Index()
    for part, add in (("instances", _add_instances), ("people", _add_people), ("panoptic", _add_panoptic)):
        path = folder / "annotations" / f"{FILES[part]}_{subset}.json"
        if path.is_file():
            need_folder(folder / subset, LAYOUT)
            add(path, index, subset)
    return [_item(subset, image, name, index) for image, name in sorted(index.names.items(), key=lambda photo: photo[1])]


def _item(subset: str, image: int, name: str, index: _Index) -> Item:
    photo = f"{subset}/{name}"
    own = [(part, " ".join(found.get(image, ()))) for part, found in index.parts.items()]
    return Item(SPLITS[subset], scene_of("coco", photo), photo, parts_of([("photo", photo), ("size", index.sizes[image]), *own]))


def _add_instances(path: Path, index: _Index, _subset: str) -> None:
    _add_spans(path, index, "instances")


def _add_people(path: Path, index: _Index, _subset: str) -> None:
    def check(category: dict[str, Any]) -> None:
        if tuple(category["keypoints"]) != KEYPOINTS:
            raise InputError(f"{path}: has other keypoints than COCO's: {', '.join(KEYPOINTS)}")

    _add_spans(path, index, "people", check)


def _add_spans(path: Path, index: _Index, part: str, check: Callable[[dict[str, Any]], None] | None = None) -> None:
    spans = index.begin(part)
    for entry in entries_of(path):
        with as_published(path, f"an entry of {entry.section}"):
            if entry.section == "images":
                index.add_photo(entry.value)
            elif entry.section == "annotations":
                spans[int(entry.value["image_id"])].append(entry.span)
            elif entry.section == "categories" and check is not None:
                check(entry.value)


def _add_panoptic(path: Path, index: _Index, subset: str) -> None:
    maps, segments = index.begin("panoptic"), index.begin("segments")
    is_thing: dict[int, bool] = {}
    found: dict[int, list[tuple[int, int, bool]]] = {}
    for entry in entries_of(path):
        with as_published(path, f"an entry of {entry.section}"):
            if entry.section == "images":
                index.add_photo(entry.value)
            elif entry.section == "categories":
                is_thing[int(entry.value["id"])] = bool(entry.value["isthing"])
            elif entry.section == "annotations":
                image = int(entry.value["image_id"])
                maps[image].append(f"annotations/panoptic_{subset}/{entry.value['file_name']}")
                found[image] = [(int(s["id"]), int(s["category_id"]), bool(s["iscrowd"])) for s in entry.value["segments_info"]]
    class_of = _classes(path, is_thing)
    for image, values in found.items():
        for number, category, is_crowd in values:
            if category not in class_of:
                raise InputError(f"{path}: a segment of picture {image} is of the category {category}, which the file does not list")
            role = ("crowd" if is_crowd else "thing") if is_thing[category] else "stuff"
            segments[image].append(f"{number}:{class_of[category]}:{role}")


def _classes(path: Path, categories: dict[int, bool]) -> dict[int, int]:
    """Classes count from 1 in the order of the categories' numbers; 0 is left for what is not labelled."""
    if len(categories) >= len(PALETTE):
        raise InputError(f"{path}: has {len(categories)} categories: at most {len(PALETTE) - 1} have a colour")
    return {category: 1 + place for place, category in enumerate(sorted(categories))}


@contextmanager
def as_published(path: Path, what: str) -> Iterator[None]:
    """A block that takes an annotation for one of COCO's. Raises: InputError saying `what` is none, and in which file."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: {what} is not as COCO's are ({error!r})") from error
