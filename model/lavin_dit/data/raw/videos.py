"""Video files, decoded with suspicion: a few containers and codecs, frame by frame, no further than asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from lavin_dit.data.raw.images import check_size
from lavin_dit.errors import InputError

DEMUXERS = {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".gif": "gif"}
VIDEO_SUFFIXES = tuple(DEMUXERS)
CODECS = ("h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mjpeg", "prores", "ffv1", "huffyuv", "utvideo", "png", "rawvideo", "gif")
DECODERS = (*CODECS, "libdav1d")
CODED_PIXELS = 2e6
"""Codecs round sizes up to whole blocks: a megapixel may take this many pixels before it is cropped."""
INT_MAX = 2**31 - 1
DAMAGE = (av.FFmpegError, OSError, ValueError, EOFError, RuntimeError, OverflowError)
"""What PyAV raises on files that lie."""


@dataclass(frozen=True)
class Video:
    """An open video file; `num_frames` is what its container declares, where it does."""

    label: str
    max_megapixels: float
    container: InputContainer
    stream: VideoStream

    @property
    def num_frames(self) -> int | None:
        return self.stream.frames or None

    def frames(self) -> Iterator[Image.Image]:
        """The frames from the first on, upright, RGB; each is decoded when it is asked for.

        Raises: InputError naming the file where a frame is damaged, or larger than allowed.
        """
        with _named_damage(self.label):
            for frame in self.container.decode(self.stream):
                check_size((frame.width, frame.height), self.label, self.max_megapixels)
                if frame.is_corrupt:
                    raise InputError(f"{self.label}: cannot be read as a video: it is damaged or cut off")
                yield _picture(frame)


@contextmanager
def open_video(stream: BinaryIO, *, label: str, suffix: str, max_megapixels: float) -> Iterator[Video]:
    """Opens a video file of one of `VIDEO_SUFFIXES`; its suffix says which kind it is, not its content.

    Raises: InputError naming `label` where the content is no such video, is damaged, too large, or of a codec that is not read here.
    """
    demuxer = DEMUXERS[suffix.lower()]
    with _named_damage(label):
        container = av.open(stream, "r", format=demuxer, options=_options(demuxer, max_megapixels))
    with container:
        with _named_damage(label):
            video = Video(label, max_megapixels, container, _stream_of(container, label))
            check_size((video.stream.width, video.stream.height), label, max_megapixels)
        yield video


def _options(demuxer: str, max_megapixels: float) -> dict[str, str]:
    """Nothing but this file is opened, by nothing but these decoders, which stop at damage instead of guessing."""
    return {
        "protocol_whitelist": "none",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(DECODERS),
        "max_pixels": str(min(int(max_megapixels * CODED_PIXELS), INT_MAX)),
        "err_detect": "crccheck+bitstream+buffer+explode",
        "threads": "1",
    }


def _stream_of(container: InputContainer, label: str) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise InputError(f"{label}: holds no video")
    if stream.codec_context is None or stream.codec_context.name not in DECODERS:
        raise InputError(f"{label}: is compressed in a way that is not read here: {', '.join(CODECS)} are")
    return stream


def _picture(frame: VideoFrame) -> Image.Image:
    """Phones store upright videos as lying ones, and the angle beside them."""
    return Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


@contextmanager
def _named_damage(label: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{label}: cannot be read as a video: it is damaged or cut off ({reason})") from error
