"""COCO's outlines of objects: polygons and run-length codes, as masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from lavin_dit.data.readers.squares import Square

Segmentation = list[Any] | dict[str, Any]


def mask_in_square(segmentation: Segmentation, size: tuple[int, int], square: Square) -> NDArray[np.bool_]:
    """What of an object lies in the square of its picture, by the middles of the square's pixels. Shapes: returns (h, w).

    `size` is the picture's (width, height).
    Raises: ValueError where the segmentation is neither polygons nor a run-length code of that size.
    """
    if isinstance(segmentation, dict):
        return square.pick(decode_runs(segmentation, size))
    mask = np.zeros((square.resolution, square.resolution), np.bool_)
    for outline in segmentation:
        mask |= _inside(square.points(_corners(outline)), square.resolution)
    return mask


def _corners(outline: Any) -> NDArray[np.float64]:
    corners = np.array(outline, np.float64).reshape(-1, 2)
    if not np.isfinite(corners).all():
        raise ValueError("a polygon's corners are no numbers")
    return corners


def _inside(corners: NDArray[np.float64], resolution: int) -> NDArray[np.bool_]:
    # A pixel counts by its middle, which for skimage is its whole number.
    mask = np.zeros((resolution, resolution), np.bool_)
    mask[polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, mask.shape)] = True  # type: ignore[no-untyped-call]
    return mask


def decode_runs(code: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a run-length code, compressed or not: runs of 0 and 1 in turn, down the columns. Shapes: returns (H, W).

    Raises: ValueError where it is damaged, or not of this (width, height).
    """
    width, height = size
    if list(code["size"]) != [height, width]:
        raise ValueError(f"a run-length code is of {code['size']}, its picture {height} high and {width} wide")
    counts = code["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(runs, default=-1) < 0 or sum(runs) != width * height:
        raise ValueError("a run-length code does not add up to its picture")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(counts: str) -> list[int]:
    """COCO's text form: 5 bits a character, low ones first, signed, each run from the third on less the one two before it."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError("a run-length code holds a character that it cannot")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("a run-length code is cut off")
    return runs
