"""A plain ImageNet tree: photographs for restoration.

train/<wnid>/*.JPEG, val/<wnid>/*.JPEG or val/*.JPEG; also below ILSVRC/Data/CLS-LOC/
"""

from pathlib import Path

from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.readers.files import folders_in, need_folder, pictures_in, relative, top_of
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.errors import InputError

LAYOUT = "ImageNet has train/ and val/ with a folder of pictures for each class (val/ may hold its pictures without folders)"
SPLITS: dict[str, Split] = {"train": "train", "val": "test"}
TASKS: tuple[str, ...] = ()


def find(folder: Path) -> tuple[Item, ...]:
    """All pictures, class by class. Raises: InputError where the layout is another."""
    top = top_of(folder, "ILSVRC/Data/CLS-LOC")
    need_folder(top / "train", LAYOUT)
    items = [
        _item(relative(path, folder), split)
        for subset, split in SPLITS.items()
        if (top / subset).is_dir()
        for place in (top / subset, *folders_in(top / subset))
        for path in pictures_in(place)
    ]
    if not items:
        raise InputError(f"{top}: holds no pictures: {LAYOUT}")
    return tuple(items)


def read(_folder: Path, _item: Item, _request: Request) -> dict[str, ImagePair | ClipPair]:
    """ImageNet has no pairs of its own."""
    return {}


def _item(name: str, split: Split) -> Item:
    return Item(split, scene_of("imagenet", name), name, (("photo", name),))
