"""The plain terms of the ST-VAE's loss: squared and absolute error, and the KL. Source: LaVin-DiT, section 3.2."""

from dataclasses import dataclass

from torch import Tensor

from lavin_dit.vae.st_vae import Moments


@dataclass(frozen=True)
class PixelLosses:
    """Losses of a reconstruction. Shapes: `per_sample` `(b,)`, their weighted sum; `parts` scalars, means over the samples."""

    per_sample: Tensor
    parts: dict[str, Tensor]

    def plus(self, name: str, term: Tensor, *, weight: float) -> "PixelLosses":
        """With one term more. Shapes: term `(b,)`."""
        return PixelLosses(self.per_sample + weight * term, self.parts | {name: term.mean().detach()})


def pixel_losses(reconstruction: Tensor, pixels: Tensor, *, absolute_weight: float) -> PixelLosses:
    """Squared error and weighted absolute error per value. Shapes: both `(b, c, t, h, w)`."""
    error = reconstruction - pixels
    squared, absolute = error.square().flatten(1).mean(dim=1), error.abs().flatten(1).mean(dim=1)
    return PixelLosses(squared, {"squared": squared.mean().detach()}).plus("absolute", absolute, weight=absolute_weight)


def kl_loss(moments: Moments, pixels: Tensor) -> Tensor:
    """The KL in nats per pixel value, so that its weight does not depend on the resolution."""
    return moments.kl() / pixels[0].numel()


def vae_losses(reconstruction: Tensor, pixels: Tensor, moments: Moments, *, absolute_weight: float, kl_weight: float) -> dict[str, Tensor]:
    """The plain terms alone; `loss` is their weighted sum. Shapes: reconstruction and pixels `(b, c, t, h, w)`."""
    losses = pixel_losses(reconstruction, pixels, absolute_weight=absolute_weight)
    kl = kl_loss(moments, pixels)
    return {"loss": losses.per_sample.mean() + kl_weight * kl, **losses.parts, "kl": kl}
