"""A corpus of files that people have by accident, or that somebody made on purpose; `write_bad_pictures` puts them into a folder."""

import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 24
MAX_MEGAPIXELS = 0.01
"""What the corpus is read with: some of its files are too large on purpose."""


def picture(side: int = SIDE, seed: int = 0) -> Image.Image:
    """Soft colours that every format keeps nearly."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((side, side), Image.Resampling.BICUBIC)


def saved(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(kind: bytes, content: bytes) -> bytes:
    """A good PNG with one more chunk behind its header."""
    whole = saved(picture())
    return whole[:33] + png_chunk(kind, content) + whole[33:]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + rows + png_chunk(b"IEND", b"")


def bmp_of_size(width: int, height: int) -> bytes:
    """A BMP that holds a header alone."""
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff_of(tags: Mapping[int, tuple[int, int, int]], *, next_page: int = 0) -> bytes:
    """A little-endian TIFF of one page of tags: number to (type, count, value)."""
    entries = b"".join(struct.pack("<HHII", tag, *fields) for tag, fields in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_page)


SHORT, LONG = 3, 4
GREY_TIFF = {256: (LONG, 1, 4), 257: (LONG, 1, 4), 258: (SHORT, 1, 8), 259: (SHORT, 1, 1), 262: (SHORT, 1, 1), 273: (LONG, 1, 0)}
GREY_TIFF |= {277: (SHORT, 1, 1), 278: (LONG, 1, 4), 279: (LONG, 1, 16)}
DAMAGED = "cannot be read as an image: it is damaged"


def bad_pictures() -> dict[str, tuple[bytes, str]]:
    """File names, their content, and what the refusal of each says after its name."""
    whole = {suffix: saved(picture(), format_) for suffix, format_ in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP"), ("tif", "TIFF"))}
    cut = {f"cut {suffix}.{suffix}": (content[: len(content) * 2 // 3], DAMAGED) for suffix, content in whole.items()}
    moving = {"save_all": True, "append_images": [picture(seed=1)]}
    many_zeros = zlib.compress(bytes(2**21), 9)
    return cut | {
        "empty.png": (b"", "is empty (0 bytes)"),
        "text.png": (b"This is no picture.\n", DAMAGED),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", DAMAGED),
        "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", DAMAGED),
        "gif.png": (saved(picture(), "GIF"), DAMAGED),
        "only a header.png": (whole["png"][:33], DAMAGED),
        "checksum.png": (whole["png"][:20] + b"\x01" + whole["png"][21:], DAMAGED),
        "bomb.png": (png_of_size(60000, 60000), "is 60000x60000 (3600.0 megapixels): prepare.max_megapixels allows 0.01"),
        "honest but large.png": (saved(Image.new("1", (200, 100))), "is 200x100"),
        "text bomb.png": (png_with(b"zTXt", b"Comment\0\0" + many_zeros), DAMAGED),
        "profile bomb.png": (png_with(b"iCCP", b"p\0\0" + many_zeros), DAMAGED),
        "animated.png": (saved(picture(), "PNG", **moving), "is animated or has several pages"),
        "animated too.webp": (saved(picture(), "WEBP", **moving), "is animated or has several pages"),
        "pages.tif": (saved(picture(), "TIFF", **moving), "is animated or has several pages"),
        "its strip lies outside.tif": (tiff_of(GREY_TIFF | {273: (LONG, 1, 2**31)}), DAMAGED),
        "large.tif": (tiff_of(GREY_TIFF | {256: (LONG, 1, 2**30), 257: (LONG, 1, 2**30)}), "is 1073741824x1073741824"),
        "no size.tif": (tiff_of({258: (SHORT, 1, 8)}), DAMAGED),
        "a tag of 16 GB.tif": (tiff_of(GREY_TIFF | {273: (LONG, 2**32 - 1, 8)}), DAMAGED),
        "floats.tif": (saved(Image.fromarray(np.array([[0.5, 2.0]], np.float32)), "TIFF"), "holds F values outside of 16-bit grey"),
        "vast.bmp": (bmp_of_size(2**31 - 1, 2**31 - 1), "is 2147483647x2147483647"),
    }


def odd_pictures() -> dict[str, tuple[bytes, list[int]]]:
    """Files that are unusual but plain in what they mean, and the colour of all of their pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey, red = Image.new("L", (SIDE, SIDE), 77), Image.new("RGB", (SIDE, SIDE), (200, 0, 0))
    half = Image.new("RGBA", (SIDE, SIDE), (200, 0, 0, 0))
    preview = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    return {
        "grey.png": (saved(grey), [77, 77, 77]),
        "palette.png": (saved(red.quantize(4)), [200, 0, 0]),
        "transparent.png": (saved(half), [255, 255, 255]),
        "transparent.webp": (saved(half, "WEBP", lossless=True), [255, 255, 255]),
        "grey of 16 bits.png": (saved(Image.fromarray(np.full((SIDE, SIDE), 77 * 257, np.uint16))), [77, 77, 77]),
        "grey of 16 bits.tif": (saved(Image.fromarray(np.full((SIDE, SIDE), 77 * 257, np.uint16)), "TIFF"), [77, 77, 77]),
        "colour of 16 bits.png": (deep_png(200 * 257, 0, 0), [200, 0, 0]),
        "print.tif": (saved(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "TIFF"), [255, 0, 0]),
        "rotated.jpg": (saved(grey, "JPEG", exif=exif), [77, 77, 77]),
        "broken exif.jpg": (saved(grey, "JPEG", exif=b"Exif\0\0garbage"), [77, 77, 77]),
        "with a preview.jpg": (saved(grey, "MPO", **preview), [77, 77, 77]),
        "its suffix lies.png": (saved(grey, "JPEG"), [77, 77, 77]),
    }


def deep_png(red: int, green: int, blue: int) -> bytes:
    """A PNG of 16 bits for each of red, green and blue."""
    row = b"\0" + struct.pack(">HHH", red, green, blue) * SIDE
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    rows = png_chunk(b"IDAT", zlib.compress(row * SIDE))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + rows + png_chunk(b"IEND", b"")


def write_bad_pictures(folder: Path) -> dict[Path, str]:
    """Writes the bad pictures into a folder; returns what the refusal of each begins with."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in bad_pictures().items():
        (folder / name).write_bytes(content)
    return {folder / name: f"{folder / name}: {reason}" for name, (_, reason) in bad_pictures().items()}


def tar_of(contents: Mapping[str, bytes], **kinds: bytes) -> bytes:
    """An uncompressed tar; `kinds` are members that are no plain files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, content in contents.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
        for name, kind in kinds.items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            archive.addfile(header)
    return buffer.getvalue()


def tar_that_goes_round() -> bytes:
    """Its second header has a negative size, which leads back to the first."""
    tar = bytearray(tar_of({"a_input.png": b"", "a_target.png": b""}))
    tar[512 + 124 : 512 + 136] = b"\xff" * 10 + struct.pack(">h", -1024)
    return with_header_checksums(tar)


def with_header_checksums(tar: bytes | bytearray) -> bytes:
    """Makes damaged headers believable."""
    mended = bytearray(tar)
    for start in range(0, len(mended) - 511, 512):
        if mended[start + 257 : start + 262] == b"ustar":
            mended[start + 148 : start + 156] = b" " * 8
            mended[start + 148 : start + 156] = b"%06o\0 " % sum(mended[start : start + 512])
    return bytes(mended)


def frames(number: int, side: int = SIDE) -> list[NDArray[np.uint8]]:
    """Frames of a clip: each is told by its brightness. Shapes: each (h, w, 3)."""
    return [np.full((side, side, 3), 20 * index, np.uint8) for index in range(number)]


ENCODERS = {
    ".mp4": ("mp4", "libx264", "yuv420p"),
    ".mov": ("mov", "png", "rgb24"),
    ".mkv": ("matroska", "ffv1", "bgr0"),
    ".webm": ("webm", "libvpx-vp9", "yuv420p"),
    ".avi": ("avi", "mjpeg", "yuvj420p"),
    ".gif": ("gif", "gif", "rgb8"),
}


def video(
    pictures: list[NDArray[np.uint8]],
    suffix: str = ".mkv",
    *,
    encoder: tuple[str, str, str] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda _: None,
) -> bytes:
    """A video file of these frames, lossless where its suffix is .mkv or .mov; `prepare` may change its stream."""
    format_, codec, pixels = encoder or ENCODERS[suffix]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format_) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixels
        prepare(stream)
        for content in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(content, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
