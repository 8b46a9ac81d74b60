"""How well pictures and clips come back from their latents.

Shapes: pictures `(b, c, h, w)`, clips `(b, c, t, h, w)`. Units: values in [-1, 1]; PSNR in decibels.
"""

from statistics import mean

from einops import rearrange
from torch import Tensor

from lavin_dit.evaluation.metrics import MEASURES, psnr_of
from lavin_dit.inference import to_pixels


def psnr(restored: Tensor, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio over the samples, as the evaluation measures it."""
    squared = ((restored - pictures) / 2.0).square().flatten(1).mean(dim=1)
    return mean(psnr_of(error) for error in squared.tolist())


def ssim(restored: Tensor, pictures: Tensor) -> float:
    """Mean structural similarity over the pictures, as the evaluation measures it."""
    measured = (MEASURES["image"](to_pixels(ours), to_pixels(theirs)) for ours, theirs in zip(restored, pictures, strict=True))
    return mean(measurement.values["ssim"] for measurement in measured)


def clip_metrics(restored: Tensor, clips: Tensor) -> dict[str, float]:
    """PSNR and SSIM over the frames, and how well changes come back: the PSNR of the differences between neighbouring frames.

    A reconstruction that flickers, smears or freezes has a lower one than its frames alone would tell.
    """
    ours, theirs = (rearrange(x, "b c t h w -> (b t) c h w") for x in (restored, clips))
    return {
        "psnr": psnr(ours, theirs),
        "ssim": ssim(ours, theirs),
        "temporal_psnr": psnr(restored.diff(dim=2), clips.diff(dim=2)),
    }
