"""A 3D patch discriminator: tells real pictures and clips from reconstructions, patch by patch.

Source: Isola et al., 2017 (PatchGAN), with a third dimension; norms see one sample each, since a batch may be split over processes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavin_dit.presets import MAX_WIDENING, PIXEL_CHANNELS

SLOPE = 0.2
NORM_GROUPS = 8


class PatchConv3d(nn.Conv3d):
    """A convolution of 3x4x4 taps, or 3x3x3 where space is not halved, with a border of zeros.

    With one frame the outer taps in time see that border alone, so the middle ones, applied in 2D, give the same for a third of the work.
    """

    def __init__(self, in_channels: int, out_channels: int, *, halves_space: bool, halves_time: bool) -> None:
        taps, space = (4, 2) if halves_space else (3, 1)
        super().__init__(in_channels, out_channels, (3, taps, taps), (1 + halves_time, space, space), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            return F.conv2d(x.squeeze(2), self.weight[:, :, 1], self.bias, self.stride[1:], self.padding[1:]).unsqueeze(2)
        return super().forward(x)


class PatchDiscriminator(nn.Module):
    """Strided convolutions that widen as they go down, then one score a patch; above 0 means real.

    Shapes: `(b, 3, t, h, w)`, one frame or more, sides at least `2 ** num_layers`, to `(b, t', h', w')`.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        widths = [width * min(2**layer, MAX_WIDENING) for layer in range(num_layers)]
        layers: list[nn.Module] = []
        for index, (narrow, wide) in enumerate(zip([PIXEL_CHANNELS, *widths], widths, strict=False)):
            layers.append(PatchConv3d(narrow, wide, halves_space=True, halves_time=index > 0))
            if index > 0:
                layers.append(nn.GroupNorm(_groups(wide), wide))
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers)
        self.score = PatchConv3d(widths[-1], 1, halves_space=False, halves_time=False)

    def forward(self, clips: Tensor) -> Tensor:
        return self.score(self.layers(clips))[:, 0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Sets every weight: Kaiming-normal convolutions, and a score of almost nothing."""
        for module in self.modules():
            if isinstance(module, PatchConv3d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, generator=generator)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self.score.weight.mul_(0.1)


def _groups(width: int) -> int:
    """As many groups as a width can be split into, up to the usual number; of two channels at least, since one value has no spread."""
    return next(groups for groups in range(max(1, min(NORM_GROUPS, width // 2)), 0, -1) if width % groups == 0)
