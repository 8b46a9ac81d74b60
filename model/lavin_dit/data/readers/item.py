"""What a published data set is cut into: items, each one picture (or the frames from one on) and where its annotations lie."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a data set with its annotations, to be read later, in another process too.

    `scene` is unique within the data set and safe in the names of tar members; `label` is the picture's path below the data set's
    folder. `parts` are for the reader alone: names of files below that folder, and places in its annotation files.
    """

    split: Split
    scene: str
    label: str
    parts: tuple[tuple[str, str], ...]

    def part(self, name: str) -> str:
        """The part of a name, empty where the item has none."""
        return dict(self.parts).get(name, "")


@dataclass(frozen=True)
class Request:
    """What is asked of an item: pairs of which tasks, how large, and how long the clips."""

    tasks: frozenset[str]
    resolution: int
    max_megapixels: float
    clip_frames: int
