"""How much work a sample is, on average over a run: numbers of pairs, dropped prompts, images and clips. Never imports torch."""

from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.flops import TRAINING_FACTOR, dit_flops, vae_flops
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import terms_flops
from lavin_dit.presets import latent_frames
from lavin_dit.training_config import TrainDitConfig, TrainVaeConfig


def most_pairs(section: TrainDitConfig, frames: int) -> int:
    """The most context pairs of an episode of pictures, or of clips of some frames."""
    return section.clips.max_pairs if section.clips and frames > 1 else section.max_pairs


def largest_episodes(section: TrainDitConfig, *, samples: int, resolution: int, frames: int) -> Episodes:
    """A micro-batch of episodes that show the most pairs."""
    return Episodes.of_pairs(samples, num_pairs=most_pairs(section, frames), resolution=resolution, frames=frames)


def episodes_flops(section: TrainDitConfig, episodes: Episodes) -> float:
    """A micro-batch's forward pass."""
    return dit_flops(section.shape, samples=episodes.samples, prompt_tokens=episodes.prompt, answer_tokens=episodes.answer)


def mean_dit_flops(section: TrainDitConfig, resolution: int, clip_frames: int) -> float:
    """One episode's forward pass, over pictures and clips, all numbers of pairs and dropped prompts."""
    pictures = _dit_flops(section, section.max_pairs, resolution, 1)
    if section.clips is None:
        return pictures
    clips = _dit_flops(section, section.clips.max_pairs, resolution, clip_frames)
    return (1 - section.clips.share) * pictures + section.clips.share * clips


def mean_latent_pictures(section: TrainDitConfig, clip_frames: int) -> float:
    """Latents of an episode, in those of a picture, over the same."""
    # Pairs are drawn from 1 to the most; a query and its answer come with them.
    pictures = section.max_pairs + 1 + 2
    if section.clips is None:
        return pictures
    clips = (section.clips.max_pairs + 1 + 2) * latent_frames(clip_frames)
    return (1 - section.clips.share) * pictures + section.clips.share * clips


def mean_vae_flops(section: TrainVaeConfig, resolution: int) -> float:
    """One sample's forward pass, over images and clips as the steps to the end see them; of its terms, a third of what they take in all."""
    image, clip = (
        vae_sample_flops(section, Volume(frames, resolution, resolution)) for frames in (1, section.clips.frames if section.clips else 1)
    )
    share = clip_share(section)
    return (1 - share) * image + share * clip


def vae_sample_flops(section: TrainVaeConfig, pixels: Volume) -> float:
    """One sample's forward pass, with a third of what its terms take in all."""
    network = sum(vae_flops(section.shape, samples=1, frames=pixels.frames, height=pixels.height, width=pixels.width))
    return network + terms_flops(section, pixels) / TRAINING_FACTOR


def mean_frames(section: TrainVaeConfig) -> float:
    """Frames of a sample, over the steps to the end."""
    return 1 + clip_share(section) * (section.clips.frames - 1 if section.clips else 0)


def clip_share(section: TrainVaeConfig) -> float:
    """Share of all steps that see clips."""
    if section.clips is None:
        return 0.0
    return float(section.clips.share * max(section.steps - section.clips.first_step, 0) / section.steps)


def _dit_flops(section: TrainDitConfig, max_pairs: int, resolution: int, frames: int) -> float:
    drop = section.prompt_drop_probability
    dropped = Episodes.dropped(1, resolution=resolution, frames=frames)
    shown = [Episodes.of_pairs(1, num_pairs=pairs, resolution=resolution, frames=frames) for pairs in range(1, max_pairs + 1)]
    mean = sum(episodes_flops(section, episodes) for episodes in shown) / max_pairs
    return (1 - drop) * mean + drop * episodes_flops(section, dropped)
