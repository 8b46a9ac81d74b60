"""KITTI's depth prediction benchmark: streets with the depth that a laser measured at some of the pixels.

{train,val}/<drive>/proj_depth/groundtruth/{image_02,image_03}/<frame>.png      16 bits, metres times 256, 0 where nothing was measured
<date>/<drive>/{image_02,image_03}/data/<frame>.png                             the raw recordings
"""

from pathlib import Path

import numpy as np

from lavin_dit.data.drawings.encodings import encode_depth
from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.readers.files import folders_in, need_folder, pictures_in, relative, top_of
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.readers.maps import read_map
from lavin_dit.data.readers.squares import Square, fill_nearest, open_photo
from lavin_dit.data.tasks import ClipPair, ImagePair

LAYOUT = "KITTI depth has train/<drive> and val/<drive> with proj_depth/groundtruth, and the raw recordings <date>/<drive> beside them"
SPLITS: dict[str, Split] = {"train": "train", "val": "test"}
TASKS = ("depth",)
CAMERAS = ("image_02", "image_03")
DATE_LENGTH = len("2011_09_26")
STEPS_A_METRE = 256
MEASURED_ROWS = (0.40810811, 0.99189189)
"""The share of the rows that the laser reaches: what lies above is mostly sky (the crop of Garg et al., which evaluations use)."""
MAX_GAP = 8
"""Pixels from a measured one, in the published picture, within which a pixel still counts as measured."""
MIN_MEASURED_SHARE = 0.8


def find(folder: Path) -> tuple[Item, ...]:
    """All pictures with measured depth, drive by drive. Raises: InputError where the layout is another."""
    top = top_of(folder, "data_depth_annotated")
    for subset in SPLITS:
        need_folder(top / subset, LAYOUT)
    return tuple(
        _item(relative(path, folder), drive.name, camera, split)
        for subset, split in SPLITS.items()
        for drive in folders_in(top / subset)
        for camera in CAMERAS
        if (drive / "proj_depth" / "groundtruth" / camera).is_dir()
        for path in pictures_in(drive / "proj_depth" / "groundtruth" / camera)
    )


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The square of the rows that the laser reaches, and its depth; none where it measured too little of it.

    The laser measured about a sixth of all pixels: the others take the depth of the nearest one that it did.
    """
    photo = open_photo(folder, item.part("photo"), request)
    depth = read_map(folder, item.part("depth"), photo, request)
    top, bottom = (round(share * photo.height) for share in MEASURED_ROWS)
    photo, depth = photo.crop((0, top, photo.width, bottom)), depth[top:bottom]
    if not depth.any():
        return {}
    square = Square.of(photo.size, request.resolution)
    filled, gaps = fill_nearest(depth, depth > 0)
    if (square.pick(gaps) <= MAX_GAP).mean() < MIN_MEASURED_SHARE:
        return {}
    target = encode_depth(square.pick(filled).astype(np.float32) / STEPS_A_METRE)
    return {"depth": ImagePair(square_picture(photo, request.resolution, is_nearest=False), target)}


def _item(depth: str, drive: str, camera: str, split: Split) -> Item:
    name = f"{drive[:DATE_LENGTH]}/{drive}/{camera}/data/{depth.rpartition('/')[2]}"
    return Item(split, scene_of("kitti", f"{drive}_{camera}_{name.rpartition('/')[2]}"), name, (("photo", name), ("depth", depth)))
