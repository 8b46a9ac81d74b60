"""A person's picture files on their way into a bundle's runtime, and answers on their way back. Needs numpy and Pillow only.

A whole picture is squeezed into the model's square, and its answer stretched back to the picture's own size, so that the two lie on each
other. Training pictures are cropped to their centre instead: a picture that is far from square looks unlike them.
"""

import errno
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.data.raw.images import SUFFIXES, decode_image
from lavin_dit.data.raw.sources import entries_of
from lavin_dit.errors import InputError
from lavin_dit.export.runtime import Context, Nearest

MAX_MEGAPIXELS = 64.0
ROLES = ("input", "target")

Picture = NDArray[np.uint8]


def read_image(path: Path) -> Image.Image:
    """An upright RGB image.

    Raises: InputError naming the file that cannot be read as one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_image(content, label=str(path), max_megapixels=MAX_MEGAPIXELS, limit="lavin predict")


def squeeze(image: Image.Image, resolution: int, *, is_nearest: bool = False) -> Picture:
    """A whole image at the model's resolution. Shapes: returns `(h, w, 3)`."""
    return np.asarray(image.resize((resolution, resolution), _filter(is_nearest)))


def stretch(answer: Picture, size: tuple[int, int], *, is_nearest: bool) -> Image.Image:
    """An answer at the size (width, height) of its query."""
    return Image.fromarray(answer).resize(size, _filter(is_nearest))


def _filter(is_nearest: bool) -> Image.Resampling:
    return Image.Resampling.NEAREST if is_nearest else Image.Resampling.LANCZOS


def find_images(folder: Path) -> list[Path]:
    """The images of a folder, in the order of their names.

    Raises: InputError where there is none.
    """
    found = [path for path in entries_of(folder, folder) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise InputError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    return found


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The pairs `<name>_input.<ext>`, `<name>_target.<ext>` of a folder, in the order of their names.

    Raises: InputError naming the file that is not called so, repeats a name, or lacks its partner.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder with pairs <name>_input.<ext> and <name>_target.<ext>")
    by_name: dict[str, dict[str, Path]] = {}
    for path in find_images(folder):
        name, _, role = path.stem.rpartition("_")
        if not name or role not in ROLES:
            raise InputError(f"{path}: must be named <name>_input or <name>_target before its extension")
        known = by_name.setdefault(name, {})
        if role in known:
            raise InputError(f"{path}: repeats the name {name}_{role} of {known[role]}")
        known[role] = path
    for name, known in by_name.items():
        for role, other in (ROLES, ROLES[::-1]):
            if role not in known:
                raise InputError(f"{known[other]}: has no {role}: {name}_{role}.<ext> is missing")
    return [(by_name[name]["input"], by_name[name]["target"]) for name in sorted(by_name)]


def read_context(pairs: list[tuple[Path, Path]], resolution: int, *, nearest: Nearest) -> Context:
    """Example pairs from files.

    Raises: InputError naming the file that cannot be read, or whose size differs from its input's.
    """
    inputs, targets = [], []
    for input_path, target_path in pairs:
        first, second = read_image(input_path), read_image(target_path)
        if first.size != second.size:
            sizes = f"{second.width}x{second.height}, but its input is {first.width}x{first.height}"
            raise InputError(f"{target_path}: is {sizes}: both must have one size")
        inputs.append(squeeze(first, resolution, is_nearest=nearest.inputs))
        targets.append(squeeze(second, resolution, is_nearest=nearest.targets))
    return Context(np.stack(inputs), np.stack(targets))


def write_image(path: Path, image: Image.Image) -> None:
    """Writes an image that appears whole: beside, then renamed.

    Raises: InputError where the file cannot be written there.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        image.save(beside)
        beside.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        beside.unlink(missing_ok=True)
