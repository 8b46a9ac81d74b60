"""The perceptual term: how unlike two pictures look. Source: Zhang et al., 2018 (LPIPS); LaVin-DiT, section 3.2."""

import logging

import torch
from einops import rearrange
from torch import Tensor, nn

from lavin_dit.training_config import PerceptualConfig
from lavin_dit.vae.vgg import Vgg16, load_vgg

logger = logging.getLogger(__name__)

NORM_EPS = 1e-10


class FeatureDistance(nn.Module):
    """Squared differences of VGG16's unit-length features, weighted by channel, averaged over places, summed over the five stages."""

    def __init__(self, vgg: Vgg16) -> None:
        super().__init__()
        self.vgg = vgg

    def forward(self, reconstruction: Tensor, pixels: Tensor) -> Tensor:
        """Shapes: both `(b, 3, t, h, w)` in [-1, 1], sides at least 16, to `(b,)`, means over the frames."""
        shown, true = (rearrange(x, "b c t h w -> (b t) c h w") for x in (reconstruction, pixels))
        with torch.no_grad():
            wanted = self.vgg(true)
        distance = torch.zeros(len(shown), device=shown.device)
        for ours, theirs, weights in zip(self.vgg(shown), wanted, self.vgg.channel_weights, strict=True):
            difference = (_unit(ours.float()) - _unit(theirs.float())).square()
            distance = distance + (difference * weights.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
        return distance.view(len(pixels), -1).mean(dim=1)


def perceptual_term(config: PerceptualConfig) -> nn.Module | None:
    """What measures how unlike two pictures look, and one line in the log that says which; None where it does not count.

    Raises: InputError naming the file of features where it is not what it should be.
    """
    if config.weight == 0:
        return None
    if config.features:
        vgg = load_vgg(config.features)
        logger.info("perceptual term: distance of VGG16 features (%s)", config.features.path)
        return FeatureDistance(vgg)
    # Importing its library takes a second.
    from lavin_dit.vae.structure import StructuralDissimilarity

    logger.info("perceptual term: multi-scale structural similarity, since perceptual.features names no file")
    return StructuralDissimilarity()


def _unit(features: Tensor) -> Tensor:
    # The root of zero has no slope.
    return features / (features.square().sum(dim=1, keepdim=True) + NORM_EPS).sqrt()
