"""Maps of objects as the targets of tasks, by the same rules as those of rendered scenes; None where a map says nothing.

Shapes: maps (h, w): objects are numbered from 1, `CROWD` is a crowd in which one is not told from the next, 0 everything else.
"""

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.drawings.encodings import draw_box, encode_instances, encode_mask
from lavin_dit.data.pixels import Picture

Objects = NDArray[np.int32]
CROWD = -1
MAX_CROWD_SHARE = 0.01
"""Of a picture whose objects are drawn one by one: more of a crowd would be called background."""


def draw_objects(objects: Objects) -> Picture | None:
    """Each object in a colour of its own."""
    if (objects == CROWD).mean() > MAX_CROWD_SHARE:
        return None
    picture = encode_instances(np.maximum(objects, 0))
    return picture if picture.any() else None


def draw_foreground(objects: Objects) -> Picture | None:
    """Objects and crowds white."""
    return encode_mask(objects != 0) if objects.any() else None


def draw_largest_box(objects: Objects) -> Picture | None:
    """The box around what is seen of the object that covers most of the picture."""
    known, counts = np.unique(objects[objects > 0], return_counts=True)
    if not len(known):
        return None
    rows, columns = np.nonzero(objects == known[counts.argmax()])
    box = float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
    return draw_box(box, *objects.shape)


def renumber(values: NDArray[np.int32], numbers: dict[int, int]) -> NDArray[np.int32]:
    """Each value's new number, 0 for those without one."""
    known, places = np.unique(values, return_inverse=True)
    return np.array([numbers.get(int(value), 0) for value in known], np.int32)[places].reshape(values.shape)
