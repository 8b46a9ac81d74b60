import torch
from torch import Tensor

from lavin_dit.vae.losses import kl_loss, pixel_losses, vae_losses
from lavin_dit.vae.st_vae import Moments


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_errors_are_means_over_the_values_of_each_sample() -> None:
    pixels = draw(2, 3, 1, 16, 16)
    offset = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1, 1)
    losses = pixel_losses(pixels + offset, pixels, absolute_weight=2.0)
    torch.testing.assert_close(losses.per_sample, torch.tensor([0.25 + 2 * 0.5, 1.0 + 2 * 1.0]))
    torch.testing.assert_close(losses.parts, {"squared": torch.tensor(0.625), "absolute": torch.tensor(0.75)})


def test_a_term_more_counts_by_its_weight_and_is_told_without() -> None:
    pixels = draw(2, 3, 1, 16, 16)
    losses = pixel_losses(pixels, pixels, absolute_weight=1.0).plus("perceptual", torch.tensor([1.0, 3.0]), weight=0.5)
    torch.testing.assert_close(losses.per_sample, torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(losses.parts["perceptual"], torch.tensor(2.0))


def test_the_kl_is_that_of_two_gaussians_per_pixel_value() -> None:
    mean, logvar = draw(2, 16, 1, 2, 2), draw(2, 16, 1, 2, 2, seed=1)
    posterior, prior = torch.distributions.Normal(mean, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(posterior, prior).sum() / 2 / (3 * 16 * 16)
    torch.testing.assert_close(kl_loss(Moments(mean, logvar), torch.zeros(2, 3, 1, 16, 16)), expected)


def test_the_plain_loss_is_the_sum_of_its_weighted_parts() -> None:
    pixels, ones = draw(2, 3, 1, 16, 16), torch.ones(2, 16, 1, 2, 2)
    losses = vae_losses(pixels + 0.5, pixels, Moments(ones, ones), absolute_weight=2.0, kl_weight=0.1)
    torch.testing.assert_close((losses["squared"], losses["absolute"]), (torch.tensor(0.25), torch.tensor(0.5)))
    torch.testing.assert_close(losses["loss"], 0.25 + 2.0 * 0.5 + 0.1 * losses["kl"])
