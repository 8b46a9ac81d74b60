import pytest
import torch

from lavin_dit.evaluation.metrics import PSNR_CAP_DB
from lavin_dit.evaluation.reconstruction import clip_metrics, psnr, ssim


def test_psnr_is_ten_decibels_for_a_tenth_of_the_squared_range() -> None:
    pictures = torch.zeros(2, 3, 4, 4)
    assert psnr(pictures + 0.4**0.5, pictures) == pytest.approx(10.0, abs=1e-4)
    assert psnr(pictures, pictures) == PSNR_CAP_DB


def test_ssim_is_one_for_equal_pictures_and_less_for_blurred_ones() -> None:
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert ssim(pictures, pictures) == pytest.approx(1.0)
    assert ssim(torch.nn.functional.avg_pool2d(pictures, 3, 1, 1), pictures) < 0.9


def test_a_steady_error_leaves_the_changes_right_and_flicker_does_not() -> None:
    clips = torch.rand(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    steady = clip_metrics(clips + 0.1, clips)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(1, 1, 5, 1, 1)
    flickering = clip_metrics(clips + 0.1 * sign, clips)
    assert steady["psnr"] == pytest.approx(flickering["psnr"], abs=1e-3) == pytest.approx(26.02, abs=0.01)
    assert steady["temporal_psnr"] == PSNR_CAP_DB
    assert flickering["temporal_psnr"] == pytest.approx(20.0, abs=0.01)


def test_a_frozen_clip_has_lost_its_changes() -> None:
    clips = torch.rand(1, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    frozen = clip_metrics(clips[:, :, :1].expand_as(clips), clips)
    assert frozen["temporal_psnr"] == pytest.approx(psnr(torch.zeros_like(clips.diff(dim=2)), clips.diff(dim=2)))
