"""What the latents of a trained ST-VAE are like: the two numbers that normalise them, and whether any channel says nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lavin_dit.vae.st_vae import Moments, STVae
from lavin_dit.weights import LatentStatistics

BATCH = 32
COLLAPSED_NATS = 0.01
"""A channel whose posterior is nearer to the prior than this, a value, says nothing about the picture."""


@dataclass(frozen=True)
class LatentReport:
    """Of posterior means and variances over many pictures. Shapes: lists of one number a channel. Units: KL in nats a latent value."""

    mean: float
    std: float
    channel_std: list[float]
    channel_kl: list[float]

    @property
    def collapsed_share(self) -> float:
        """Share of the channels that say nothing."""
        return sum(kl < COLLAPSED_NATS for kl in self.channel_kl) / len(self.channel_kl)

    def as_metrics(self) -> dict[str, object]:
        """For metrics.json, where a list would not be taken for numbers."""
        channels = {
            name: {f"{channel:02d}": value for channel, value in enumerate(values)}
            for name, values in (("channel_std", self.channel_std), ("channel_kl", self.channel_kl))
        }
        return {"mean": self.mean, "std": self.std, "collapsed_share": self.collapsed_share, **channels}


def measure_statistics(vae: STVae, pictures: Tensor) -> LatentStatistics:
    """Mean and inverse standard deviation over all posterior means. Shapes: pictures `(b, c, h, w)`."""
    means = _moments(vae, pictures).mean
    return LatentStatistics(shift=float(means.mean()), scale=float(1.0 / means.std()))


def describe_latents(vae: STVae, pictures: Tensor) -> LatentReport:
    """What the latents of pictures are like. Shapes: pictures `(b, c, h, w)`."""
    moments = _moments(vae, pictures)
    by_channel = (0, 2, 3, 4)
    return LatentReport(
        mean=float(moments.mean.mean()),
        std=float(moments.mean.std()),
        channel_std=moments.mean.std(dim=by_channel).tolist(),
        channel_kl=moments.kl_by_value().mean(dim=by_channel).tolist(),
    )


@torch.no_grad()
def _moments(vae: STVae, pictures: Tensor) -> Moments:
    """Shapes: pictures `(b, c, h, w)`, to moments on the CPU."""
    device = next(vae.parameters()).device
    parts = [vae.encode(part[:, :, None].to(device)) for part in pictures.split(BATCH)]  # type: ignore[no-untyped-call]
    return Moments(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in ("mean", "logvar")))
