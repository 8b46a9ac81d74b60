import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lavin_dit.data.readers.maps import decode_map
from lavin_dit.errors import InputError


def encoded(image: Image.Image, format_: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_)
    return buffer.getvalue()


def decode(content: bytes) -> np.ndarray:
    return decode_map(content, label="map.png", max_megapixels=1.0)


def refusal(content: bytes) -> str:
    with pytest.raises(InputError) as caught:
        decode(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_come_back_as_they_were_stored(dtype: type) -> None:
    values = np.linspace(0, np.iinfo(dtype).max, 35).astype(dtype).reshape(5, 7)
    assert np.array_equal(decode(encoded(Image.fromarray(values))), values)


def test_a_palette_gives_its_indices_not_its_colours() -> None:
    image = Image.new("P", (3, 2))
    image.putdata([0, 1, 2, 255, 1, 0])
    image.putpalette([200, 100, 50] * 256)
    assert decode(encoded(image)).tolist() == [[0, 1, 2], [255, 1, 0]]


def test_maps_in_colour_or_in_another_format_are_refused() -> None:
    assert refusal(encoded(Image.new("RGB", (2, 2)))) == "map.png: is a RGB image: must be a PNG of one channel, as it was published"
    assert "cannot be read as a PNG" in refusal(encoded(Image.new("L", (2, 2)), "JPEG"))


def test_a_map_with_more_pixels_than_allowed_is_refused_before_it_is_decoded() -> None:
    assert "megapixels" in refusal(encoded(Image.new("1", (20_000, 20_000))))


def test_an_empty_map_is_refused() -> None:
    assert "cannot be read as a PNG" in refusal(b"")


@given(st.data())
def test_a_damaged_map_is_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    content = bytearray(encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with suppress(InputError):
        decode(bytes(content[: data.draw(st.integers(0, len(content)))]))
