import io
from itertools import islice

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavin_dit.data.raw.videos import VIDEO_SUFFIXES, open_video
from lavin_dit.errors import InputError
from tests.lavin_dit.data.raw.bad_files import ENCODERS, frames, video

NUM_FRAMES = 6


def decoded(content: bytes, suffix: str, number: int = NUM_FRAMES, *, max_megapixels: float = 1.0) -> list[np.ndarray]:
    with open_video(io.BytesIO(content), label="a", suffix=suffix, max_megapixels=max_megapixels) as opened:
        return [np.asarray(frame) for frame in islice(opened.frames(), number)]


def refusal(content: bytes, suffix: str, **options: float) -> str:
    with pytest.raises(InputError) as caught:
        decoded(content, suffix, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def videos() -> dict[str, bytes]:
    return {suffix: video(frames(NUM_FRAMES), suffix) for suffix in ENCODERS}


def test_every_suffix_is_tried() -> None:
    assert set(VIDEO_SUFFIXES) == {*ENCODERS, ".m4v"}


@pytest.mark.parametrize("suffix", ENCODERS)
def test_frames_come_back_in_their_order(videos: dict[str, bytes], suffix: str) -> None:
    shown = decoded(videos[suffix], suffix)
    assert [frame.shape for frame in shown] == [(24, 24, 3)] * NUM_FRAMES
    is_lossless = suffix in (".mkv", ".mov")
    for frame, expected in zip(shown, frames(NUM_FRAMES), strict=True):
        assert abs(frame.mean() - expected.mean()) < 10
        assert not is_lossless or np.array_equal(frame, expected)


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_a_video_that_a_phone_took_upright_is_upright(degrees: int, corner: tuple[int, int]) -> None:
    lying = np.zeros((32, 64, 3), np.uint8)
    lying[:16, :16] = 255
    content = video([lying] * 2, encoder=("mp4", "mpeg4", "yuv420p"), prepare=lambda stream: stream.set_display_rotation(degrees))
    shown = decoded(content, ".mp4", 1)[0]
    assert shown.shape == ((32, 64, 3) if degrees in (0, 180) else (64, 32, 3))
    bright = {(y, x) for y in (0, -1) for x in (0, -1) if shown[y, x].min() > 128}
    assert bright == {corner}


def test_no_more_is_decoded_than_asked_for() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 24, 24, 3), dtype=np.uint8)
    content = video(list(noise))
    assert len(decoded(content, ".mkv", 2)) == 2
    assert len(decoded(content[: len(content) // 2], ".mkv", 2)) == 2
    assert len(decoded(content[: len(content) // 2], ".mkv")) < NUM_FRAMES


def test_a_frame_larger_than_allowed_is_refused() -> None:
    content = video(frames(2, side=128), ".mp4")
    assert refusal(content, ".mp4", max_megapixels=0.01) == "a: is 128x128 (0.0 megapixels): prepare.max_megapixels allows 0.01"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
def test_a_video_that_is_cut_off_before_its_index_is_refused(videos: dict[str, bytes], suffix: str) -> None:
    content = videos[suffix]
    assert refusal(content[: len(content) // 4], suffix).startswith("a: cannot be read as a video: it is damaged or cut off (")


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"text\n" * 100, b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
)
def test_what_is_no_video_is_refused_and_lists_of_files_are_not_followed(suffix: str, content: bytes) -> None:
    assert refusal(content, suffix).startswith("a: cannot be read as a video: it is damaged or cut off (")


def test_a_suffix_that_lies_is_refused(videos: dict[str, bytes]) -> None:
    assert "cannot be read as a video" in refusal(videos[".mkv"], ".mp4")


def test_a_codec_that_is_not_read_here_is_refused() -> None:
    content = video(frames(2), encoder=("avi", "msvideo1", "rgb555le"))
    assert refusal(content, ".avi").startswith("a: is compressed in a way that is not read here: h264, ")


def test_sound_alone_is_refused() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert refusal(buffer.getvalue(), ".mkv") == "a: holds no video"


@settings(max_examples=60, deadline=5000)
@given(
    suffix=st.sampled_from([".mp4", ".mkv", ".gif"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_no_damage_raises_anything_but_a_refusal(videos: dict[str, bytes], suffix: str, damage: list[tuple[float, int]]) -> None:
    content = bytearray(videos[suffix])
    for place, value in damage:
        content[int(place * len(content))] = value
    message = "a: "
    try:
        decoded(bytes(content), suffix)
    except InputError as error:
        message = str(error)
    assert message.startswith("a: ")
    assert len(message.splitlines()) == 1
