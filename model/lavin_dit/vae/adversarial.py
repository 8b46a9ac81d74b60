"""The adversarial term, both sides of it from one pass of the discriminator over the reconstruction.

Source: Lim and Ye, Geometric GAN, 2017 (the hinge loss).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Duel:
    """What both sides learn from a batch.

    Shapes: `pull` `(b, c, t, h, w)`, the gradient of each sample's own adversarial loss at its pixels; the others scalars, means over the
    samples. Only `hinge`, the discriminator's loss, leads back to weights, and to no others than the discriminator's.
    """

    pull: Tensor
    adversarial: Tensor
    hinge: Tensor


def fight(discriminator: nn.Module, reconstruction: Tensor, pixels: Tensor) -> Duel:
    """Shows a reconstruction and its original to the discriminator.

    Shapes: both `(b, 3, t, h, w)`; the reconstruction is a leaf that wants its gradient.
    """
    assert reconstruction.is_leaf, "the reconstruction is the network's own: the hinge loss would train it as well"
    fake, real = discriminator(reconstruction).float(), discriminator(pixels).float()
    adversarial = -per_sample(fake)
    (pull,) = torch.autograd.grad(adversarial.sum(), reconstruction, retain_graph=True)
    hinge = (per_sample(F.relu(1.0 - real)) + per_sample(F.relu(1.0 + fake))).mean() / 2
    return Duel(pull, adversarial.mean().detach(), hinge)


def pull_norm(pull: Tensor) -> Tensor:
    """The mean over the samples of the norm of a gradient at the pixels."""
    norms: Tensor = torch.linalg.vector_norm(pull.flatten(1), dim=1)
    return norms.mean()


def slope_of(value: Tensor) -> Tensor:
    """A zero that has the gradient of `value`; no number where `value` is none."""
    return value - value.detach()


def per_sample(scores: Tensor) -> Tensor:
    """Means over all but the first dimension."""
    return scores.flatten(1).mean(dim=1)
