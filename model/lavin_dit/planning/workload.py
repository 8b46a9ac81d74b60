"""How much work a sample is, on average over a run: numbers of pairs, dropped prompts, images and clips. Never imports torch."""

from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.flops import TRAINING_FACTOR, dit_flops, vae_flops
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import terms_flops
from lavin_dit.presets import DROPPED_FRAMES
from lavin_dit.training_config import TrainDitConfig, TrainVaeConfig


def mean_dit_flops(section: TrainDitConfig, resolution: int) -> float:
    """One episode's forward pass, over all numbers of pairs and dropped prompts."""
    total = 0.0
    for num_pairs in range(1, section.max_pairs + 1):
        episode = Episodes.of_pairs(1, num_pairs=num_pairs, resolution=resolution)
        shown = dit_flops(section.shape, samples=1, prompt_tokens=episode.prompt, answer_tokens=episode.answer)
        dropped = dit_flops(section.shape, samples=1, prompt_tokens=DROPPED_FRAMES * episode.answer, answer_tokens=episode.answer)
        total += (1 - section.prompt_drop_probability) * shown + section.prompt_drop_probability * dropped
    return total / section.max_pairs


def mean_vae_flops(section: TrainVaeConfig, resolution: int) -> float:
    """One sample's forward pass, over images and clips as the steps to the end see them; of its terms, a third of what they take in all."""
    image, clip = (
        _vae_flops(section, Volume(frames, resolution, resolution)) for frames in (1, section.clips.frames if section.clips else 1)
    )
    share = clip_share(section)
    return (1 - share) * image + share * clip


def mean_frames(section: TrainVaeConfig) -> float:
    """Frames of a sample, over the steps to the end."""
    return 1 + clip_share(section) * (section.clips.frames - 1 if section.clips else 0)


def clip_share(section: TrainVaeConfig) -> float:
    """Share of all steps that see clips."""
    if section.clips is None:
        return 0.0
    return float(section.clips.share * max(section.steps - section.clips.first_step, 0) / section.steps)


def _vae_flops(section: TrainVaeConfig, pixels: Volume) -> float:
    network = sum(vae_flops(section.shape, samples=1, frames=pixels.frames, height=pixels.height, width=pixels.width))
    return network + terms_flops(section, pixels) / TRAINING_FACTOR
