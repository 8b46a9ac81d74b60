from pathlib import Path

import pytest

from lavin_dit.config import load_config
from lavin_dit.errors import InputError

PARAMS = Path(__file__).parents[2] / "params.yaml"
CLIPS = ["prepare.clip_frames=9", "prepare.num_train_clips=4", "prepare.num_test_clips=2"]
SECOND_STAGE = "train_vae.clips={first_step: 10, share: 0.5, frames: 9}"


def test_clips_of_ones_own_need_none_that_are_rendered() -> None:
    config = load_config(PARAMS, ["prepare.clip_frames=5", "train_dit.clips={share: 0.5, max_pairs: 1}"])
    assert config.train_dit.clips is not None


def test_clips_that_are_rendered_may_be_trained_on() -> None:
    config = load_config(PARAMS, [*CLIPS, SECOND_STAGE])
    assert config.train_vae.clips is not None
    assert config.train_vae.clips.frames == config.prepare.clip_frames == 9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["prepare.num_train_clips=5"],
            r"^prepare: clip_frames is 1: must be 1 \+ 4k with k above 0 \(5, 9, 13 \.\.\.\) where num_train_clips",
        ),
        ([SECOND_STAGE], r"^train_vae\.clips\.frames is 9: must be at most prepare\.clip_frames \(1\)$"),
        (["train_dit.clips={share: 0.5, max_pairs: 1}"], r"^train_dit\.clips is set: needs prepare\.clip_frames above 1"),
        ([*CLIPS, "prepare.clip_frames=5", SECOND_STAGE], r"^train_vae\.clips\.frames is 9: must be at most prepare\.clip_frames \(5\)$"),
    ],
)
def test_clips_that_nobody_renders_are_refused_before_anything_runs(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(PARAMS, overrides)


ADVERSARIAL = "train_vae.adversarial={weight: 0.5, first_step: 2, width: 4, num_layers: 2, learning_rate: 1.0e-3}"


def test_a_discriminator_that_halves_too_often_is_refused() -> None:
    with pytest.raises(InputError, match=r"^train_vae\.adversarial\.num_layers is 7: must be at most 6, each halves 64 pixels$"):
        load_config(PARAMS, [ADVERSARIAL, "train_vae.adversarial.num_layers=7"])


@pytest.mark.parametrize(("section", "settings"), [("clips", "{first_step: 4, share: 0.5, frames: 5}"), ("adversarial", ADVERSARIAL)])
def test_a_stage_that_would_never_begin_is_refused(section: str, settings: str) -> None:
    given = settings if section == "adversarial" else f"train_vae.clips={settings}"
    with pytest.raises(InputError, match=rf"^train_vae: {section}\.first_step is 100: must be below steps \(100\)$"):
        load_config(PARAMS, ["prepare.clip_frames=5", "train_vae.steps=100", given, f"train_vae.{section}.first_step=100"])
