"""The published data sets that can be read here, each as its publishers lay it out.

A new one is a module with `find` and `read`, and one entry of `READERS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lavin_dit.data.pixels import Picture
from lavin_dit.data.readers import ade20k, cityscapes, coco, coco_index, davis, imagenet, kitti_depth, nyu_depth, pascal_voc
from lavin_dit.data.readers.item import Item, Request
from lavin_dit.data.readers.squares import square_photo
from lavin_dit.data.tasks import ClipPair, ImagePair, task_of
from lavin_dit.errors import InputError

INVERSES = {"depth": "depth_to_image", "semantic": "semantic_to_image", "pose": "pose_to_image"}
"""Tasks that ask for the picture of another task's target."""

Find = Callable[[Path], tuple[Item, ...]]
Read = Callable[[Path, Item, Request], dict[str, ImagePair | ClipPair]]


@dataclass(frozen=True)
class Reader:
    """How one data set is read: what it is, which tasks it annotates, and whether its pictures are good enough to be restored."""

    name: str
    summary: str
    annotates: tuple[str, ...]
    find: Find
    read: Read
    gives_photos: bool

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it gives pairs of: those that it annotates, and their inverses."""
        return (*self.annotates, *(inverse for task, inverse in INVERSES.items() if task in self.annotates))


def reader_of(name: str) -> Reader:
    """Raises: InputError where there is no reader of that name."""
    if name not in READERS:
        raise InputError(f"prepare.sources: there is no reader {name!r}: choose one of {', '.join(READERS)}")
    return READERS[name]


def check_tasks(reader_name: str, tasks: Iterable[str]) -> None:
    """Raises: InputError naming the first task that a data set can neither give pairs of nor photographs for."""
    reader = reader_of(reader_name)
    for task in tasks:
        if task in reader.tasks or (reader.gives_photos and task_of(task).from_photo):
            continue
        given = [*reader.tasks, *(["tasks of restoration"] if reader.gives_photos else [])]
        raise InputError(f"prepare.sources: the reader {reader.name} has no pairs of {task}: it gives {', '.join(given)}")


def find_items(reader_name: str, folder: Path) -> tuple[Item, ...]:
    """All items of a data set, in a fixed order; reads names and, once, annotation files, but no pictures.

    Raises: InputError naming the file or folder that is missing or damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder: prepare.sources names one below data/raw")
    return reader_of(reader_name).find(folder)


def read_item(
    reader_name: str,
    folder: Path,
    item: Item,
    *,
    tasks: Iterable[str],
    resolution: int,
    max_megapixels: float,
    clip_frames: int,
) -> dict[str, ImagePair | ClipPair]:
    """The pairs of those of `tasks` that an item has annotations for; its photograph is decoded once.

    Raises: InputError naming the file that cannot be read.
    """
    wanted = frozenset(tasks)
    needed = wanted | {task for task, inverse in INVERSES.items() if inverse in wanted}
    pairs = reader_of(reader_name).read(folder, item, Request(needed, resolution, max_megapixels, clip_frames))
    turned = {INVERSES[task]: _turned(pair) for task, pair in pairs.items() if task in INVERSES and isinstance(pair, ImagePair)}
    return {task: pair for task, pair in (pairs | turned).items() if task in wanted}


def read_item_photo(reader_name: str, folder: Path, item: Item, *, resolution: int, max_megapixels: float) -> Picture:
    """The photograph alone, for tasks of restoration. Shapes: (h, w, 3) uint8.

    Raises: InputError naming the file that cannot be read.
    """
    assert reader_of(reader_name).gives_photos, f"{reader_name} gives no photographs"
    return square_photo(folder, item.part("photo"), Request(frozenset(), resolution, max_megapixels, clip_frames=1))


def _turned(pair: ImagePair) -> ImagePair:
    return ImagePair(pair.target, pair.input)


READERS = {
    reader.name: reader
    for reader in (
        Reader("coco", "COCO 2017: everyday objects, panoptic maps and people.", coco.TASKS, coco_index.find, coco.read, gives_photos=True),
        Reader("nyu_depth", "NYU Depth v2: rooms with dense depth.", nyu_depth.TASKS, nyu_depth.find, nyu_depth.read, gives_photos=False),
        Reader("ade20k", "ADE20K: scenes in 150 classes.", ade20k.TASKS, ade20k.find, ade20k.read, gives_photos=True),
        Reader("davis", "DAVIS 2017: videos with the masks of their objects.", davis.TASKS, davis.find, davis.read, gives_photos=False),
        Reader(
            "cityscapes",
            "Cityscapes: streets in 19 classes, objects one by one.",
            cityscapes.TASKS,
            cityscapes.find,
            cityscapes.read,
            gives_photos=True,
        ),
        Reader(
            "pascal_voc",
            "Pascal VOC 2012: objects of 20 classes, for Pascal-5i too.",
            pascal_voc.TASKS,
            pascal_voc.find,
            pascal_voc.read,
            gives_photos=True,
        ),
        Reader(
            "kitti_depth",
            "KITTI: streets with depth that a laser measured.",
            kitti_depth.TASKS,
            kitti_depth.find,
            kitti_depth.read,
            gives_photos=False,
        ),
        Reader("imagenet", "ImageNet: photographs to be restored.", imagenet.TASKS, imagenet.find, imagenet.read, gives_photos=True),
    )
}
