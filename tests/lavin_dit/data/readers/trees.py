"""Small data sets laid out exactly as their publishers lay them out, of pictures whose annotations are known.

Every picture is 80x60 (or as said), so that its central square is columns 10 to 70.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

WIDTH, HEIGHT = 80, 60
VOC_COLOURS = [channel for number in range(256) for channel in (number, 255 - number, number * 7 % 256)]
SIDES = ("left", "right")
PAIRED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_KEYPOINTS = ["nose", *(f"{side}_{name}" for name in PAIRED for side in SIDES)]


def put_photo(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(rough).resize(size).save(path, format="PNG" if path.suffix == ".png" else "JPEG", quality=95)
    return path


def put_map(path: Path, values: NDArray[Any], *, has_palette: bool = False) -> Path:
    """8 bits or, of 16-bit values, 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if has_palette:
        image = image.convert("P")
        image.frombytes(values.tobytes())
        image.putpalette(VOC_COLOURS)
    image.save(path, format="PNG")
    return path


def put_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def put_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def blocks(*rectangles: tuple[int, int, int, int, int], dtype: Any = np.uint8) -> NDArray[Any]:
    """A map of rectangles (left, top, right, bottom, value) on 0."""
    values = np.zeros((HEIGHT, WIDTH), dtype)
    for left, top, right, bottom, value in rectangles:
        values[top:bottom, left:right] = value
    return values


def coco(folder: Path) -> Path:
    """Picture 7 of each split: a box (category 3) left, a run-length coded disc (category 18) right, and a person."""
    for subset in ("train2017", "val2017"):
        names = ("000000000007.jpg", "000000000009.jpg")
        for name in names:
            put_photo(folder / subset / name)
        images = [{"id": int(name[:12]), "file_name": name, "width": WIDTH, "height": HEIGHT, "license": 1} for name in names]
        head = {"info": {"description": "[a] {tree}", "year": 2017}, "licenses": [{"id": 1}], "images": images}
        annotations = folder / "annotations"
        put_json(annotations / f"instances_{subset}.json", head | {"annotations": coco_objects(), "categories": COCO_CATEGORIES})
        people = {"annotations": [coco_person()], "categories": [{"id": 1, "name": "person", "keypoints": COCO_KEYPOINTS, "skeleton": []}]}
        put_json(annotations / f"person_keypoints_{subset}.json", head | people)
        put_json(annotations / f"panoptic_{subset}.json", head | coco_panoptic(annotations / f"panoptic_{subset}"))
    return folder


COCO_CATEGORIES = [{"id": 3, "name": "car", "supercategory": "vehicle"}, {"id": 18, "name": "dog", "supercategory": "animal"}]


def coco_objects() -> list[dict[str, Any]]:
    """A car in columns 20 to 40 and rows 10 to 50, as a polygon, and a dog in columns 50 to 60 and rows 20 to 30, as runs."""
    runs = [50 * HEIGHT + 20, *[10, HEIGHT - 10] * 9, 10, 30 + 19 * HEIGHT + 0]
    runs[-1] = WIDTH * HEIGHT - sum(runs[:-1])
    car = {"segmentation": [[20, 10, 40, 10, 40, 50, 20, 50]], "bbox": [20, 10, 20, 40], "area": 800, "category_id": 3}
    dog = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}, "bbox": [50, 20, 10, 10], "area": 100, "category_id": 18}
    return [shape | {"id": number, "image_id": 7, "iscrowd": 0} for number, shape in enumerate((dog, car), 1)]


def coco_person() -> dict[str, Any]:
    """Joints down column 40, two pixels apart from row 2 on; the left ankle is hidden."""
    points = [value for row in range(17) for value in (40, 2 + 3 * row, 2)]
    points[15 * 3 + 2] = 1
    return {"id": 5, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [35, 0, 10, 55], "num_keypoints": 17, "keypoints": points}


def coco_panoptic(folder: Path) -> dict[str, Any]:
    """A car (segment 5), a dog (segment 70000) as in `coco_objects`, and grass (segment 300) below row 52."""
    numbers = blocks((20, 10, 40, 50, 5), (50, 20, 60, 30, 70000), (0, 52, 80, 60, 300), dtype=np.int64)
    put_map(folder / "000000000007.png", np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1).astype(np.uint8))
    categories = [
        {"id": 3, "isthing": 1, "name": "car"},
        {"id": 18, "isthing": 1, "name": "dog"},
        {"id": 193, "isthing": 0, "name": "grass"},
    ]
    segments = [{"id": number, "category_id": category, "iscrowd": 0} for number, category in ((5, 3), (70000, 18), (300, 193))]
    return {"annotations": [{"image_id": 7, "file_name": "000000000007.png", "segments_info": segments}], "categories": categories}


def nyu_depth(folder: Path) -> Path:
    """Four 640x480 pictures, transposed as MATLAB writes them; picture i is i + 2 metres deep, 9 in its right half, with one hole."""
    depths = np.full((4, 640, 480), 9, np.float32)
    depths[:, :320] = np.arange(2, 6, dtype=np.float32)[:, None, None]
    depths[:, 100, 200] = 0
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.broadcast_to(np.arange(640, dtype=np.uint16)[:, None] // 4, (4, 3, 640, 480)).astype(np.uint8)
        file["depths"] = depths
    savemat(folder / "splits.mat", {"trainNdxs": np.array([[1], [3]], np.uint16), "testNdxs": np.array([[2], [4]], np.uint16)})
    return folder


def ade20k(folder: Path) -> Path:
    """A wall (1) left of column 40, class 150 right of it, and other (0) in the first rows."""
    top = folder / "ADEChallengeData2016"
    for subset, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        put_photo(top / "images" / subset / f"{name}.jpg")
        put_map(top / "annotations" / subset / f"{name}.png", blocks((0, 10, 40, 60, 1), (40, 10, 80, 60, 150)))
    put_lines(top / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tStuff\tName")
    return folder


def davis(folder: Path) -> Path:
    """Videos of 12 frames with two objects, the second from the fifth frame on."""
    for subset, video in (("train", "bear"), ("val", "dance-twirl")):
        for frame in range(12):
            put_photo(folder / f"DAVIS/JPEGImages/480p/{video}/{frame:05}.jpg", seed=frame)
            shapes = [(20 + frame, 10, 35 + frame, 40, 1), *([(55, 30, 65, 50, 2)] if frame >= 4 else [])]
            put_map(folder / f"DAVIS/Annotations/480p/{video}/{frame:05}.png", blocks(*shapes), has_palette=True)
        put_lines(folder / f"DAVIS/ImageSets/2017/{subset}.txt", video)
    return folder


def cityscapes(folder: Path) -> Path:
    """Road (7) below row 30, an ego vehicle (1) in the last rows, two cars (26), and a sky (23) above."""
    for subset, city in (("train", "aachen"), ("val", "frankfurt")):
        stem = f"{city}_000000_000019"
        put_photo(folder / f"leftImg8bit/{subset}/{city}/{stem}_leftImg8bit.png")
        ground = ((0, 0, 80, 30, 23), (0, 30, 80, 55, 7), (0, 55, 80, 60, 1))
        ids = blocks(*ground, (15, 25, 30, 45, 26), (50, 25, 65, 45, 26))
        numbered = blocks(*ground, (15, 25, 30, 45, 26000), (50, 25, 65, 45, 26001), dtype=np.uint16)
        put_map(folder / f"gtFine/{subset}/{city}/{stem}_gtFine_labelIds.png", ids)
        put_map(folder / f"gtFine/{subset}/{city}/{stem}_gtFine_instanceIds.png", numbered)
    return folder


def pascal_voc(folder: Path) -> Path:
    """A cat (8) and a dog (12) with void between them; boxes of both, and a larger one that is marked as difficult."""
    top = folder / "VOCdevkit" / "VOC2012"
    for subset, name in (("train", "2007_000032"), ("val", "2007_000033")):
        put_photo(top / f"JPEGImages/{name}.jpg")
        cat, void, dog = (20, 10, 35, 50), (35, 10, 41, 50), (41, 10, 60, 50)
        put_map(top / f"SegmentationClass/{name}.png", blocks((*cat, 8), (*void, 255), (*dog, 12)), has_palette=True)
        put_map(top / f"SegmentationObject/{name}.png", blocks((*cat, 1), (*void, 255), (*dog, 2)), has_palette=True)
        boxes = [
            voc_object("cat", (21, 11, 35, 50)),
            voc_object("dog", (42, 11, 60, 50)),
            voc_object("person", (1, 1, 80, 60), difficult=1),
        ]
        put_lines(top / f"Annotations/{name}.xml", f"<annotation><filename>{name}.jpg</filename>{''.join(boxes)}</annotation>")
        put_lines(top / f"ImageSets/Segmentation/{subset}.txt", name)
        put_lines(top / f"ImageSets/Main/{subset}.txt", name)
    return folder


def voc_object(name: str, corners: tuple[int, int, int, int], *, difficult: int = 0) -> str:
    tags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{tags}</bndbox></object>"


def kitti_depth(folder: Path) -> Path:
    """1240x372 pictures; every fourth pixel was measured below row 150, 10 metres left of column 620 and 20 right of it."""
    depth = np.zeros((372, 1240), np.uint16)
    depth[150::4, :620:4], depth[150::4, 620::4] = 10 * 256, 20 * 256
    for subset, drive in (("train", "2011_09_26_drive_0001_sync"), ("val", "2011_09_28_drive_0002_sync")):
        put_map(folder / f"{subset}/{drive}/proj_depth/groundtruth/image_02/0000000005.png", depth)
        put_photo(folder / f"{drive[:10]}/{drive}/image_02/data/0000000005.png", size=(1240, 372))
    return folder


def imagenet(folder: Path) -> Path:
    """Two classes for training, and a flat val/."""
    for name in ("train/n01440764/n01440764_10026.JPEG", "train/n01443537/n01443537_10007.JPEG", "val/ILSVRC2012_val_00000001.JPEG"):
        put_photo(folder / name)
    return folder


TREES: dict[str, Callable[[Path], Path]] = {
    "coco": coco,
    "nyu_depth": nyu_depth,
    "ade20k": ade20k,
    "davis": davis,
    "cityscapes": cityscapes,
    "pascal_voc": pascal_voc,
    "kitti_depth": kitti_depth,
    "imagenet": imagenet,
}
