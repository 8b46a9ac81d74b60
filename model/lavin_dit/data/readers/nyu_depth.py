"""NYU Depth v2, the labelled part: indoor pictures with dense depth.

nyu_depth_v2_labeled.mat     MATLAB 7.3, an HDF5 file: `images` (n, 3, width, height), `depths` (n, width, height) in metres
splits.mat                   the official split: `trainNdxs` and `testNdxs`, counted from 1
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from lavin_dit.data.drawings.encodings import encode_depth
from lavin_dit.data.raw.images import check_size, square_picture
from lavin_dit.data.readers.files import need_file, package
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.readers.squares import Square, fill_nearest
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.errors import InputError

LAYOUT = "NYU Depth v2 has nyu_depth_v2_labeled.mat and splits.mat in one folder"
PICTURES, SPLIT_FILE = "nyu_depth_v2_labeled.mat", "splits.mat"
SPLITS: dict[str, Split] = {"trainNdxs": "train", "testNdxs": "test"}
TASKS = ("depth",)
MAX_SPLIT_MIB = 16
INNER = (41 / 640, 45 / 480, 601 / 640, 471 / 480)
"""Left, top, right and bottom of what lies inside of the white frame that aligning both cameras left (the crop of Eigen et al.)."""
DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, NotImplementedError, EOFError, IndexError, OverflowError, AttributeError)
"""What h5py and scipy raise on files that lie."""


def find(folder: Path) -> tuple[Item, ...]:
    """All labelled pictures in their order; none of them is read.

    Raises: InputError where a file is missing or damaged, or the split names pictures that are not there.
    """
    with _variables(folder / PICTURES) as file:
        count = len(_variable(file, "images"))
    split_of = _read_split(need_file(folder / SPLIT_FILE, LAYOUT), count)
    return tuple(Item(split_of[place], f"nyu-{place:04}", f"{PICTURES}: {place}", (("place", str(place)),)) for place in sorted(split_of))


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The picture and its depth, inside of the frame; the few pixels without a depth take that of the nearest with one."""
    picture, depth = _read_arrays(folder / PICTURES, int(item.part("place")), request)
    is_known = np.isfinite(depth) & (depth > 0)
    if not is_known.any():
        return {}
    filled, _ = fill_nearest(depth, is_known)
    square = Square.of(picture.size, request.resolution)
    return {"depth": ImagePair(square_picture(picture, request.resolution, is_nearest=False), encode_depth(square.pick(filled)))}


def _read_arrays(path: Path, place: int, request: Request) -> tuple[Image.Image, NDArray[np.float32]]:
    with _variables(path) as file:
        images, depths = _variable(file, "images"), _variable(file, "depths")
        _, channels, width, height = images.shape
        check_size((width, height), str(path), request.max_megapixels)
        if channels != 3 or images.dtype != np.uint8 or depths.shape != (len(images), width, height):
            raise ValueError("images and depths do not belong together")
        picture, depth = images[place].transpose(2, 1, 0), depths[place].astype(np.float32).T
    left, top, right, bottom = (round(share * size) for share, size in zip(INNER, (width, height) * 2, strict=True))
    return Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right])), depth[top:bottom, left:right]


@contextmanager
def _variables(path: Path) -> Iterator[Any]:
    h5py = package("h5py", reader="nyu_depth")
    try:
        with h5py.File(need_file(path, LAYOUT), "r") as file:
            yield file
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: is not the published file, or is damaged ({str(error).splitlines()[0]})") from error


def _variable(file: Any, name: str) -> Any:
    """A variable whose bytes are in this very file: HDF5 may also point into others."""
    h5py = package("h5py", reader="nyu_depth")
    variable = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(variable, h5py.Dataset) or variable.external or variable.is_virtual:
        raise ValueError(f"it has no variable {name} of its own")
    return variable


def _read_split(path: Path, count: int) -> dict[int, Split]:
    if path.stat().st_size > MAX_SPLIT_MIB * 2**20:
        raise InputError(f"{path}: is larger than the official split may be ({MAX_SPLIT_MIB} MiB)")
    try:
        found = loadmat(path, variable_names=list(SPLITS))
        split_of = {int(place) - 1: split for name, split in SPLITS.items() for place in found[name].ravel()}
    except (*DAMAGE, MatReadError, zlib.error) as error:
        raise InputError(f"{path}: is not the official split: it must hold {' and '.join(SPLITS)}") from error
    if not split_of or min(split_of) < 0 or max(split_of) >= count:
        raise InputError(f"{path}: names pictures that {PICTURES} does not hold: it has {count}")
    return split_of
