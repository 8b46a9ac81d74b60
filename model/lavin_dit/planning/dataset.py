"""How large the rendered data set and its latents are. Never imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lavin_dit.config import Config
from lavin_dit.data import views
from lavin_dit.data.tasks import Task, task_of
from lavin_dit.planning.flops import vae_flops
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR, latent_frames

PNG_BYTES_A_PIXEL, PNG_RESOLUTION, PNG_EXPONENT = 0.45, 256, 0.55
"""Of prepared pictures, measured at 64, 128 and 256 px: 0.97, 0.62 and 0.45 bytes a pixel."""
DIFFICULT_SHARE = 0.3
"""What a difficulty of 1 adds, over all tasks: 19 % at 64 px, 28 % at 128 and 32 % at 256; half of that at 0.5."""
LATENT_WIDTH, MOMENTS = 2, 2
"""Latents are kept in half precision, their mean and their log variance."""


@dataclass(frozen=True)
class DataPlan:
    """What `prepare` renders; a user's own files come on top. Units: bytes, seconds."""

    num_pairs: int
    num_pictures: int
    """Distinct ones whose latents the J-DiT learns from, a clip's frames each: tasks share their scenes' pictures."""
    shard_bytes: int
    latent_bytes: int
    """On disk, from where they are mapped into memory."""
    encode_s: float
    """Encoding them, before the J-DiT's first step."""


def plan_data(config: Config, encoding: float) -> DataPlan:
    """The rendered data set and its latents.

    Units: `encoding` in operations a second of all GPUs together.
    """
    prepare, resolution = config.prepare, config.prepare.resolution
    tasks = [task_of(name) for name in prepare.tasks]
    trained = [task for task in tasks if task.name not in prepare.held_out_tasks]
    scenes, clips = prepare.num_train_scenes + prepare.num_test_scenes, prepare.num_train_clips + prepare.num_test_clips
    # A clip's own frames are written whether or not a task shows them.
    written = scenes * pictures_of_scene(tasks) + clips * max(clips_of_scene(tasks), 1) * prepare.clip_frames
    pictures = prepare.num_train_scenes * pictures_of_scene(trained)
    encoded_clips = prepare.num_train_clips * clips_of_scene(trained) if config.train_dit.clips else 0
    latents = pictures + encoded_clips * latent_frames(prepare.clip_frames)
    return DataPlan(
        num_pairs=(
            prepare.num_train_scenes * sum(task.from_scene for task in trained)
            + prepare.num_test_scenes * sum(task.from_scene for task in tasks)
            + prepare.num_train_clips * sum(task.from_clip for task in trained)
            + prepare.num_test_clips * sum(task.from_clip for task in tasks)
        ),
        num_pictures=pictures + encoded_clips * prepare.clip_frames,
        shard_bytes=round(written * picture_bytes(resolution, prepare.difficulty)),
        latent_bytes=MOMENTS * latents * latent_bytes(resolution),
        encode_s=(pictures * _encode_flops(config, 1) + encoded_clips * _encode_flops(config, prepare.clip_frames)) / encoding,
    )


def pictures_of_scene(tasks: Sequence[Task]) -> int:
    """Distinct pictures that tasks show of a rendered scene: a restored one is the scene's own."""
    drawn = [task for task in tasks if task.from_scene]
    shown = {_named(view) for task in drawn for view in task.views or (views.show_picture,)}
    return len(shown) + sum(task.degrade is not None for task in drawn)


def clips_of_scene(tasks: Sequence[Task]) -> int:
    """Distinct clips that tasks show of a moving scene."""
    return len({_named(view) for task in tasks for view in task.clip_views or ()})


def _named(view: object) -> object:
    """A view by what it does: two that are made alike are one."""
    return (view.func, tuple(view.keywords.items())) if isinstance(view, partial) else view


def _encode_flops(config: Config, frames: int) -> float:
    """Of a picture, or of a clip."""
    resolution = config.prepare.resolution
    encode, _ = vae_flops(config.train_vae.shape, samples=1, frames=frames, height=resolution, width=resolution)
    return encode


def picture_bytes(resolution: int, difficulty: float) -> float:
    """A rendered picture as PNG, over all tasks; maps of few colours take less."""
    bytes_a_pixel: float = PNG_BYTES_A_PIXEL * (PNG_RESOLUTION / resolution) ** PNG_EXPONENT
    return (1 + DIFFICULT_SHARE * difficulty) * bytes_a_pixel * resolution**2


def latent_bytes(resolution: int) -> int:
    """The mean of a picture's latents, which is what training reads."""
    return LATENT_CHANNELS * (resolution // SPATIAL_FACTOR) ** 2 * LATENT_WIDTH
