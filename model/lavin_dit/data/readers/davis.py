"""DAVIS 2017 (480p): short videos with each object's mask in every frame.

DAVIS/JPEGImages/480p/<video>/00000.jpg ...
DAVIS/Annotations/480p/<video>/00000.png ...          palettes: 0 background, then objects, numbered alike in all frames
DAVIS/ImageSets/2017/{train,val}.txt
"""

import re
from pathlib import Path, PurePosixPath

import numpy as np

from lavin_dit.data.drawings.encodings import encode_instance_clip
from lavin_dit.data.pixels import Clip, Picture
from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.readers.drawings import draw_foreground
from lavin_dit.data.readers.files import lines_of, need_file, need_folder, pictures_in, place_of, relative, top_of
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.readers.maps import Map, read_map
from lavin_dit.data.readers.squares import Square, open_photo
from lavin_dit.data.tasks import ClipPair, ImagePair
from lavin_dit.data.views import frames_between, hide_frames, later_frames
from lavin_dit.errors import InputError

LAYOUT = "DAVIS has DAVIS/ with JPEGImages/480p/<video>, Annotations/480p/<video> and ImageSets/2017/{train,val}.txt"
SPLITS: dict[str, Split] = {"train": "train", "val": "test"}
CLIP_TASKS = ("video_segmentation", "frame_prediction", "frame_interpolation")
TASKS = ("foreground", *CLIP_TASKS)
FRAME_NAME = re.compile(r"[0-9]{5}\.jpg")
STRIDE = 8
"""Frames from one item of a video to the next: each gives its first frame, and the clip that starts there if there are enough frames."""


def find(folder: Path) -> tuple[Item, ...]:
    """Every eighth frame of every video, by their names. Raises: InputError where a list or a folder is missing."""
    top = top_of(folder, "DAVIS")
    lists = [(need_file(top / "ImageSets" / "2017" / f"{subset}.txt", LAYOUT), split) for subset, split in SPLITS.items()]
    return tuple(item for path, split in lists for video in lines_of(path) for item in _items_of(folder, top, video, split))


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The first frame with its foreground, and the clip from there with its objects, as far as they are asked for."""
    is_clip_asked = bool(request.tasks.intersection(CLIP_TASKS))
    frames = _frames_from(folder, item.part("photo"), request.clip_frames if is_clip_asked else 1)
    pictures, objects = (np.stack(parts) for parts in zip(*(_read_frame(folder, name, request) for name in frames), strict=True))
    pairs: dict[str, ImagePair | ClipPair] = {}
    foreground = draw_foreground(objects[0])
    if foreground is not None:
        pairs["foreground"] = ImagePair(pictures[0], foreground)
    if is_clip_asked and len(frames) == request.clip_frames:
        pairs |= _clip_pairs(pictures, objects)
    return {task: pair for task, pair in pairs.items() if task in request.tasks}


def _clip_pairs(clip: Clip, objects: Map) -> dict[str, ClipPair]:
    pairs = {
        "frame_prediction": ClipPair(hide_frames(clip, later_frames), clip),
        "frame_interpolation": ClipPair(hide_frames(clip, frames_between), clip),
    }
    return pairs | {"video_segmentation": ClipPair(clip, encode_instance_clip(objects))} if objects.any() else pairs


def _read_frame(folder: Path, name: str, request: Request) -> tuple[Picture, Map]:
    photo = open_photo(folder, name, request)
    mask = PurePosixPath(name.replace("JPEGImages/480p", "Annotations/480p")).with_suffix(".png").as_posix()
    objects = read_map(folder, mask, photo, request)
    square = Square.of(photo.size, request.resolution)
    return square_picture(photo, request.resolution, is_nearest=False), square.pick(objects)


def _frames_from(folder: Path, first: str, count: int) -> list[str]:
    """The names of up to `count` frames of a video. Raises: InputError where one in the middle is missing."""
    path = place_of(folder, first)
    frames = [frame for frame in pictures_in(path.parent) if frame.name >= path.name][:count]
    for number, frame in enumerate(frames, int(path.stem)):
        if frame.stem != f"{number:05}":
            raise InputError(f"{path.with_stem(f'{number:05}')}: is missing, but later frames of its video are there")
    return [relative(frame, folder) for frame in frames]


def _items_of(folder: Path, top: Path, video: str, split: Split) -> list[Item]:
    place = place_of(top, f"JPEGImages/480p/{video}")
    frames = pictures_in(need_folder(place, LAYOUT))[::STRIDE]
    for frame in frames:
        if not FRAME_NAME.fullmatch(frame.name):
            raise InputError(f"{frame}: is no frame of a video: they are named 00000.jpg, 00001.jpg and so on")
    names = [relative(frame, folder) for frame in frames]
    return [Item(split, scene_of("davis", name), name, (("photo", name),)) for name in names]
