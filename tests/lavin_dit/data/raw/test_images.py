import io
import zlib

import numpy as np
import pytest
from PIL import Image

from lavin_dit.data.raw.images import decode_image, square_picture
from lavin_dit.data.world.scenes import render_scene
from lavin_dit.errors import InputError


def saved(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_, **options)
    return buffer.getvalue()


def decoded(content: bytes, max_megapixels: float = 1.0) -> np.ndarray:
    return np.asarray(decode_image(content, label="a.png", max_megapixels=max_megapixels))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(render_scene(0, 0, 48).rgb)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(picture: Image.Image, format_: str) -> None:
    np.testing.assert_array_equal(decoded(saved(picture, format_)), np.asarray(picture))


@pytest.mark.parametrize(("format_", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("JPEG", {"progressive": True})])
def test_lossy_formats_come_back_nearly(picture: Image.Image, format_: str, options: dict[str, object]) -> None:
    difference = decoded(saved(picture, format_, **options)).astype(int) - np.asarray(picture)
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured(picture: Image.Image, orientation: int) -> None:
    upright = picture.crop((0, 0, 48, 30))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    np.testing.assert_array_equal(decoded(saved(stored, exif=exif)), np.asarray(upright))


def test_transparency_becomes_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    result = decoded(saved(image))
    assert result[0, 0].tolist() == [255, 0, 0]
    assert (result.reshape(-1, 3)[1:] == 255).all()


def test_a_transparent_palette_colour_becomes_white_too() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert decoded(saved(image, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert decoded(saved(image)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_sixteen_bit_grey_is_scaled_and_not_cut() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decoded(saved(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_black_and_white_grey_and_cmyk_become_rgb() -> None:
    assert decoded(saved(Image.new("1", (2, 2), 1))).min() == 255
    assert (decoded(saved(Image.new("L", (2, 2), 77))) == 77).all()
    red = decoded(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red[..., 0].min() > 200
    assert red[..., 1:].max() < 60


def test_floating_point_grey_is_refused_since_its_range_is_unknown() -> None:
    content = saved(Image.fromarray(np.array([[0.5, 2.0]], np.float32)), "TIFF")
    with pytest.raises(InputError, match=r"^a\.png: holds F values outside of 16-bit grey"):
        decoded(content)


def test_an_empty_file_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"^a\.png: is empty \(0 bytes\)$"):
        decoded(b"")


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files_are_refused_by_name(picture: Image.Image, format_: str, share: float) -> None:
    content = saved(picture, format_)
    with pytest.raises(InputError, match=r"^a\.png: cannot be read as an image: it is damaged") as caught:
        decoded(content[: int(len(content) * share)])
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_damaged_bytes_never_raise_anything_else(picture: Image.Image) -> None:
    random = np.random.default_rng(0)
    refused = 0
    for format_ in ("PNG", "JPEG", "WEBP", "TIFF"):
        content = np.frombuffer(saved(picture, format_), np.uint8)
        for _ in range(40):
            damaged = content.copy()
            damaged[random.integers(0, len(damaged), 20)] ^= 0x5A
            try:
                decode_image(damaged.tobytes(), label="a.png", max_megapixels=1.0)
            except InputError:
                refused += 1
    assert refused > 40


def test_text_and_other_formats_are_refused_by_name(picture: Image.Image) -> None:
    for content in (b"not an image", saved(picture, "GIF")):
        with pytest.raises(InputError, match=r"^a\.png: cannot be read as an image: it is damaged, or none of PNG"):
            decoded(content)


def test_more_megapixels_than_allowed_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(InputError, match=r"^a\.png: is 200x100 \(0\.0 megapixels\): prepare\.max_megapixels allows 0\.01$"):
        decoded(saved(Image.new("RGB", (200, 100))), max_megapixels=0.01)
    bomb = bytearray(saved(Image.new("L", (1, 1))))
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(InputError, match=r"is 60000x60000 \(3600\.0 megapixels\)"):
        decoded(bytes(bomb), max_megapixels=64.0)


def test_the_central_square_is_taken_and_resized(picture: Image.Image) -> None:
    wide = Image.new("RGB", (96, 48), "red")
    wide.paste(picture, (24, 0))
    np.testing.assert_array_equal(square_picture(wide, 48, is_nearest=False), np.asarray(picture))
    assert square_picture(wide, 16, is_nearest=False).shape == (16, 16, 3)


def test_nearest_makes_no_new_colours() -> None:
    labels = render_scene(0, 0, 50).classes
    image = Image.fromarray(np.stack([labels * 40] * 3, axis=-1))
    before = set(np.unique(np.asarray(image)))
    assert set(np.unique(square_picture(image, 32, is_nearest=True))) <= before
    assert not set(np.unique(square_picture(image, 32, is_nearest=False))) <= before
