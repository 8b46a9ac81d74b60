"""A small set of shards with still scenes and with clips of moving ones."""

from pathlib import Path

from lavin_dit.data.shards.shard_set import write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair
from lavin_dit.data.world.clips import render_clip
from lavin_dit.data.world.scenes import render_scene

RESOLUTION, CLIP_FRAMES = 16, 9
NUM_TRAIN_CLIPS, NUM_TEST_CLIPS = 4, 2

FULL_RECIPE = (
    "prepare.clip_frames=9",
    "prepare.num_train_clips=4",
    "prepare.num_test_clips=2",
    "train_vae.perceptual={weight: 0.1, features: null}",
    "train_vae.adversarial={weight: 0.5, first_step: 2, width: 4, num_layers: 2, learning_rate: 1.0e-3}",
    "train_vae.clips={first_step: 2, share: 0.5, frames: 5}",
)
"""Overrides of params that use every term, on pictures and clips."""


def write_clip_shards(folder: Path) -> Path:
    for split, still, moving in (("train", range(8), range(NUM_TRAIN_CLIPS)), ("test", range(8, 11), range(10, 10 + NUM_TEST_CLIPS))):
        with ShardWriter(folder, split, 1 << 20, clip_frames=CLIP_FRAMES) as writer:
            for number in still:
                scene = render_scene(0, number, RESOLUTION)
                writer.add(str(number), {"albedo": ImagePair(scene.rgb, scene.albedo)})
            for number in moving:
                writer.add(f"clip-{number}", {}, clip=render_clip(0, number, RESOLUTION, num_frames=CLIP_FRAMES))
    write_manifest(folder, resolution=RESOLUTION, clip_frames=CLIP_FRAMES)
    return folder
