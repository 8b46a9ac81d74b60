"""How tests ask readers for pairs."""

from pathlib import Path

from lavin_dit.data.pixels import Picture
from lavin_dit.data.readers.catalogue import find_items, read_item
from lavin_dit.data.readers.item import Item
from lavin_dit.data.tasks import ClipPair, ImagePair

RESOLUTION = 30
"""Half of the square of the trees' pictures: pixel i of a pair is pixel 10 + 2 i + 1 of the picture, across."""


def ask(reader: str, folder: Path, item: Item, *tasks: str, clip_frames: int = 5) -> dict[str, ImagePair | ClipPair]:
    return read_item(reader, folder, item, tasks=tasks, resolution=RESOLUTION, max_megapixels=1.0, clip_frames=clip_frames)


def target_of(reader: str, folder: Path, task: str, *, item: int = 0) -> Picture:
    """The target that the first item, or another, has for a task."""
    return ask(reader, folder, find_items(reader, folder)[item], task)[task].target
