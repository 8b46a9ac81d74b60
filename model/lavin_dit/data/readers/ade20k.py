"""ADE20K as the scene parsing challenge has it (ADEChallengeData2016): 150 classes of whole scenes.

ADEChallengeData2016/images/{training,validation}/*.jpg
ADEChallengeData2016/annotations/{training,validation}/*.png     0 other, 1 to 150 in the order of objectInfo150.txt
"""

from pathlib import Path

from lavin_dit.data.drawings.encodings import encode_labels
from lavin_dit.data.raw.holding_out import scene_of
from lavin_dit.data.raw.images import square_picture
from lavin_dit.data.readers.files import need_folder, pictures_in, relative, top_of
from lavin_dit.data.readers.item import Item, Request, Split
from lavin_dit.data.readers.maps import check_labels, read_map
from lavin_dit.data.readers.squares import Square, open_photo
from lavin_dit.data.tasks import ClipPair, ImagePair

LAYOUT = "ADE20K has ADEChallengeData2016/ with images/training, images/validation, annotations/training and annotations/validation"
SPLITS: dict[str, Split] = {"training": "train", "validation": "test"}
TASKS = ("semantic",)
NUM_LABELS = 151


def find(folder: Path) -> tuple[Item, ...]:
    """All pictures, by their names. Raises: InputError where a folder is missing."""
    top = top_of(folder, "ADEChallengeData2016")
    return tuple(_item(folder, top, subset, path) for subset in SPLITS for path in _pictures(top, subset))


def read(folder: Path, item: Item, request: Request) -> dict[str, ImagePair | ClipPair]:
    """The picture and the class of each of its pixels."""
    photo = open_photo(folder, item.part("photo"), request)
    labels = read_map(folder, item.part("labels"), photo, request)
    check_labels(labels, NUM_LABELS, str(folder / item.part("labels")))
    picture = square_picture(photo, request.resolution, is_nearest=False)
    return {"semantic": ImagePair(picture, encode_labels(Square.of(photo.size, request.resolution).pick(labels)))}


def _pictures(top: Path, subset: str) -> list[Path]:
    need_folder(top / "annotations" / subset, LAYOUT)
    return pictures_in(need_folder(top / "images" / subset, LAYOUT))


def _item(folder: Path, top: Path, subset: str, path: Path) -> Item:
    name = relative(path, folder)
    labels = relative(top / "annotations" / subset / f"{path.stem}.png", folder)
    return Item(SPLITS[subset], scene_of("ade20k", name), name, (("photo", name), ("labels", labels)))
