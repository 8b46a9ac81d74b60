"""The two numbers that normalise latents, measured on training pictures."""

import torch
from torch import Tensor

from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import LatentStatistics

BATCH = 32


@torch.no_grad()
def measure_statistics(vae: STVae, pictures: Tensor) -> LatentStatistics:
    """Mean and inverse standard deviation over all posterior means. Shapes: pictures `(b, c, h, w)`."""
    means = torch.cat([vae.encode(part[:, :, None]).mean for part in pictures.split(BATCH)])  # type: ignore[no-untyped-call]
    return LatentStatistics(shift=float(means.mean()), scale=float(1.0 / means.std()))
