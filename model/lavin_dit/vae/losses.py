"""Losses of the ST-VAE. Source: LaVin-DiT, section 3.2; perceptual and adversarial terms join here."""

from torch import Tensor
from torch.nn import functional as F

from lavin_dit.vae.st_vae import Moments


def vae_losses(reconstruction: Tensor, pixels: Tensor, moments: Moments, *, absolute_weight: float, kl_weight: float) -> dict[str, Tensor]:
    """Squared error, weighted absolute error and weighted KL, each per value; `loss` is their sum.

    Shapes: reconstruction and pixels `(b, c, t, h, w)`. The KL is in nats per pixel value, so that its weight does not
    depend on the resolution.
    """
    squared, absolute = F.mse_loss(reconstruction, pixels), F.l1_loss(reconstruction, pixels)
    kl = moments.kl() / pixels[0].numel()
    return {"loss": squared + absolute_weight * absolute + kl_weight * kl, "squared": squared, "absolute": absolute, "kl": kl}
