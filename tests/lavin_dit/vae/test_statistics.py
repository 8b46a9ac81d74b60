import pytest
import torch

from lavin_dit.presets import VAE_PRESETS
from lavin_dit.vae.st_vae import STVae
from lavin_dit.vae.statistics import describe_latents


def make_vae() -> STVae:
    vae = STVae(VAE_PRESETS["tiny"])
    vae.initialise(torch.Generator().manual_seed(0))
    return vae


def collapse(vae: STVae, channels: int) -> None:
    """Makes the first channels' posterior the prior, whatever the picture."""
    convolution = vae.encoder.conv_out
    assert convolution.bias is not None
    with torch.no_grad():
        for first in (0, 16):
            convolution.weight[first : first + channels] = 0.0
            convolution.bias[first : first + channels] = 0.0


def test_the_report_tells_each_channels_spread_and_divergence() -> None:
    vae, pictures = make_vae(), torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    report = describe_latents(vae, pictures)
    with torch.no_grad():
        moments = vae.encode(pictures[:, :, None])
    assert report.mean == pytest.approx(float(moments.mean.mean()), abs=1e-6)
    assert report.std == pytest.approx(float(moments.mean.std()), rel=1e-5)
    assert report.channel_std[3] == pytest.approx(float(moments.mean[:, 3].std()), rel=1e-5)
    assert sum(report.channel_kl) * moments.mean[0, 0].numel() == pytest.approx(float(moments.kl()), rel=1e-5)
    assert report.collapsed_share == 0.0


def test_channels_that_are_the_prior_count_as_collapsed() -> None:
    vae = make_vae()
    collapse(vae, 4)
    report = describe_latents(vae, torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert report.channel_kl[:4] == [0.0] * 4
    assert min(report.channel_kl[4:]) > 1.0
    assert report.collapsed_share == 0.25
    metrics = report.as_metrics()
    assert metrics["collapsed_share"] == 0.25
    assert list(metrics["channel_kl"]) == [f"{channel:02d}" for channel in range(16)]  # type: ignore[call-overload]
