import pytest
import torch
from torch import Tensor, nn

from lavin_dit.presets import VAE_PRESETS
from lavin_dit.training.finetuning import freeze
from lavin_dit.vae.blocks import SpatialNorm, resize_latent
from lavin_dit.vae.convolutions import CausalConv3d
from lavin_dit.vae.st_vae import Moments, STVae
from lavin_dit.vae.statistics import measure_statistics


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def make_vae() -> STVae:
    vae = STVae(VAE_PRESETS["tiny"])
    vae.initialise(torch.Generator().manual_seed(0))
    return vae


def num_parameters(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_the_paper_preset_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        vae = STVae(VAE_PRESETS["paper"])
    millions = [round(num_parameters(module), 1) for module in (vae, vae.encoder, vae.decoder)]
    assert millions == [215.6, 92.2, 123.4]


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_clips_of_1_plus_4k_frames_are_compressed_4x8x8_and_come_back(blocks: int) -> None:
    vae, frames = make_vae(), 1 + 4 * blocks
    moments = vae.encode(draw(2, 3, frames, 16, 24))
    assert moments.mean.shape == moments.logvar.shape == (2, 16, 1 + blocks, 2, 3)
    assert vae.decode(moments.mean).shape == (2, 3, frames, 16, 24)


def test_a_whole_vae_folded_equals_unfolded_with_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, pixels = make_vae().double(), draw(1, 3, 1, 16, 16).double()

    def run() -> list[Tensor]:
        restored = vae.decode(vae.encode(pixels).mean)
        gradients = torch.autograd.grad(restored.square().sum(), list(vae.parameters()), allow_unused=True, materialize_grads=True)
        return [restored.detach(), *gradients]

    folded = run()
    monkeypatch.setattr(CausalConv3d, "forward", CausalConv3d.forward_unfolded)
    for ours, expected in zip(folded, run(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()) + 1e-12)


@pytest.mark.parametrize("frozen", [("encoder.conv_in",), ("encoder", "decoder.conv_in"), ("encoder", "decoder.conv_in", "decoder.middle")])
def test_what_is_behind_frozen_weights_has_the_gradients_of_a_whole_network(frozen: tuple[str, ...]) -> None:
    vae, pixels = make_vae(), draw(2, 3, 1, 16, 16)

    def gradients() -> dict[str, Tensor]:
        vae.zero_grad(set_to_none=True)
        vae(pixels, draw(2, 16, 1, 2, 2))[0].square().mean().backward()
        return {name: weight.grad for name, weight in vae.named_parameters() if weight.grad is not None}

    whole = gradients()
    freeze(vae, frozen, key="train_vae.frozen")
    rest = gradients()
    assert rest.keys() == {name for name in whole if not f"{name}.".startswith(tuple(f"{part}." for part in frozen))}
    for name, gradient in rest.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6)


def test_every_picture_of_a_batch_is_on_its_own() -> None:
    vae, pixels = make_vae(), draw(3, 3, 1, 16, 16)
    torch.testing.assert_close(vae.encode(pixels).mean[1:2], vae.encode(pixels[1:2]).mean, rtol=1e-4, atol=1e-5)


def test_a_fresh_spatial_norm_is_a_plain_group_norm() -> None:
    norm = next(module for module in make_vae().modules() if isinstance(module, SpatialNorm))
    nn.init.zeros_(norm.scale.weight)
    nn.init.zeros_(norm.shift.weight)
    x = draw(2, norm.norm.num_channels, 1, 4, 4)
    torch.testing.assert_close(norm(x, draw(2, 16, 1, 2, 2)), norm.norm(x))


def test_resizing_keeps_the_first_frame_of_an_odd_clip_apart() -> None:
    latent = torch.arange(3.0).view(1, 1, 3, 1, 1)
    assert resize_latent(latent, (9, 1, 1)).flatten().tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert resize_latent(latent[:, :, :2], (4, 1, 1)).flatten().tolist() == [0, 0, 1, 1]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, second = make_vae().state_dict(), make_vae().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_divergence_is_zero_for_the_standard_normal_only() -> None:
    zero = torch.zeros(2, 16, 1, 2, 2)
    assert float(Moments(zero, zero).kl()) == 0.0
    assert float(Moments(zero + 0.1, zero).kl()) > 0.0
    assert float(Moments(zero, zero - 1.0).kl()) > 0.0


def test_a_draw_moves_by_the_standard_deviation() -> None:
    moments = Moments(draw(1, 16, 1, 2, 2), 2.0 * torch.log(torch.full((1, 16, 1, 2, 2), 0.5)))
    noise = draw(1, 16, 1, 2, 2, seed=1)
    torch.testing.assert_close(moments.sample(noise), moments.mean + 0.5 * noise)


def test_measured_statistics_bring_latents_to_zero_mean_and_unit_variance() -> None:
    vae, pictures = make_vae().requires_grad_(False), draw(40, 3, 16, 16)
    latents = vae.encode(pictures[:, :, None]).mean
    statistics = measure_statistics(vae, pictures)
    normalised = statistics.normalise(latents)
    torch.testing.assert_close((normalised.mean(), normalised.std()), (torch.tensor(0.0), torch.tensor(1.0)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(statistics.restore(normalised), latents, rtol=1e-4, atol=1e-5)
