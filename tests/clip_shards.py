"""A small set of shards with still scenes and with clips of moving ones."""

from pathlib import Path

from lavin_dit.data.clips import render_clip
from lavin_dit.data.scenes import render_scene
from lavin_dit.data.shards import ShardWriter, encode_png, write_manifest

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
        with ShardWriter(folder, split, 1 << 20) as writer:
            for number in still:
                scene = render_scene(0, number, RESOLUTION)
                writer.add(
                    f"albedo-{number}",
                    task="albedo",
                    scene=str(number),
                    input_png=encode_png(scene.rgb),
                    target_png=encode_png(scene.albedo),
                )
            for number in moving:
                frames = render_clip(0, number, RESOLUTION, num_frames=CLIP_FRAMES)
                writer.add_clip(f"clip-{number}", scene=f"clip-{number}", frame_pngs=[encode_png(frame) for frame in frames])
    write_manifest(folder, resolution=RESOLUTION, clip_frames=CLIP_FRAMES, counts={"albedo": {"train": 8, "test": 3}})
    return folder
