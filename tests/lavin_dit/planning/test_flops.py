import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.dit.j_dit import JDit
from lavin_dit.planning.flops import RECOMPUTED_FORWARDS, TRAINING_FACTOR, dit_flops, vae_flops
from lavin_dit.presets import DIT_PRESETS, LATENT_CHANNELS, VAE_PRESETS
from lavin_dit.vae.st_vae import STVae


def counted(run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def dit_inputs(samples: int, frames: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    prompt = torch.zeros(samples, LATENT_CHANNELS, frames, side, side, device="meta")
    return torch.zeros(samples, LATENT_CHANNELS, 1, side, side, device="meta"), prompt, torch.zeros(samples, device="meta")


@pytest.mark.parametrize("size", DIT_PRESETS)
def test_the_j_dits_forward_pass_takes_exactly_what_torch_counts(size: str) -> None:
    with torch.device("meta"):
        network = JDit(DIT_PRESETS[size])
    inputs = dit_inputs(samples=3, frames=5, side=8)
    with torch.no_grad():
        assert counted(lambda: network(*inputs)) == dit_flops(DIT_PRESETS[size], samples=3, prompt_tokens=5 * 16, answer_tokens=16)


@pytest.mark.parametrize("size", ["laptop", "0.03B", "3.4B"])
def test_forward_and_backward_take_three_forwards(size: str) -> None:
    with torch.device("meta"):
        network = JDit(DIT_PRESETS[size])
    inputs = dit_inputs(samples=2, frames=5, side=16)
    forward = dit_flops(DIT_PRESETS[size], samples=2, prompt_tokens=5 * 64, answer_tokens=64)
    assert counted(lambda: network(*inputs).sum().backward()) == pytest.approx(TRAINING_FACTOR * forward, rel=0.02)


@pytest.mark.parametrize("frames", [1, 5, 9])
@pytest.mark.parametrize("size", VAE_PRESETS)
def test_the_st_vae_takes_exactly_what_torch_counts(size: str, frames: int) -> None:
    with torch.device("meta"):
        network = STVae(VAE_PRESETS[size])
    pixels = torch.zeros(2, 3, frames, 32, 48, device="meta")
    latents = torch.zeros(2, LATENT_CHANNELS, 1 + (frames - 1) // 4, 4, 6, device="meta")
    with torch.no_grad():
        both = counted(lambda: network.encode(pixels)), counted(lambda: network.decode(latents))
    assert both == vae_flops(VAE_PRESETS[size], samples=2, frames=frames, height=32, width=48)


def test_a_single_frame_takes_a_third_of_what_its_causal_convolutions_would() -> None:
    image, clip = (sum(vae_flops(VAE_PRESETS["paper"], samples=1, frames=frames, height=64, width=64)) for frames in (1, 5))
    assert image < clip / 3


def test_only_full_checkpointing_repeats_products() -> None:
    assert RECOMPUTED_FORWARDS == {"none": 0.0, "selective": 0.0, "full": 1.0}
