"""A small set of shards with pictures of two sources and with clips, of noise that is smooth enough to tell apart."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lavin_dit.data.shards.shard_set import write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ClipPair, ImagePair

SIDE, CLIP_FRAMES = 16, 5
NUM_SCENES, NUM_PHOTOS, NUM_CLIPS = 10, 6, 6


def picture(number: int) -> NDArray[np.uint8]:
    """One of its own for every number."""
    small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    return small.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)


def write_mixed_shards(folder: Path, *, shard_bytes: int = 1 << 14) -> Path:
    """Tasks `invert` (of scenes and photos), `mirror` (of scenes) and `video_invert` (of clips) in several shards."""
    for split, first in (("train", 0), ("test", 1000)):
        with ShardWriter(folder, split, shard_bytes, clip_frames=CLIP_FRAMES) as writer:
            for number in range(first, first + NUM_SCENES):
                shown = picture(number)
                mirrored = np.ascontiguousarray(shown[:, ::-1])
                writer.add(f"scene-{number}", {"invert": ImagePair(shown, 255 - shown), "mirror": ImagePair(shown, mirrored)})
            for number in range(first, first + NUM_PHOTOS):
                shown = picture(100 + number)
                writer.add(f"photo-{number}", {"invert": ImagePair(shown, 255 - shown)}, source="photos")
            for number in range(first, first + NUM_CLIPS):
                clip = np.stack([picture(200 + CLIP_FRAMES * number + frame) for frame in range(CLIP_FRAMES)])
                writer.add(f"clip-{number}", {"video_invert": ClipPair(clip, 255 - clip)})
    write_manifest(folder, resolution=SIDE, clip_frames=CLIP_FRAMES)
    return folder
