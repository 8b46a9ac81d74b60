"""How unlike two pictures are in structure: the perceptual term where there are no weights of features.

Source: Wang, Simoncelli and Bovik, Multiscale structural similarity for image quality assessment, 2003.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11


class StructuralDissimilarity(nn.Module):
    """One minus the multi-scale structural similarity of each frame, with as many of the five scales as its size allows.

    Similarities at each scale count as (1 + s) / 2: powers of negative ones, which first steps see, are not defined.
    """

    def forward(self, reconstruction: Tensor, pixels: Tensor) -> Tensor:
        """Shapes: both `(b, 3, t, h, w)` in [-1, 1], sides at least 16, to `(b,)`, means over the frames."""
        # Variances are small differences of large numbers: half precision would lose them.
        with torch.autocast(reconstruction.device.type, enabled=False):
            shown, true = (rearrange(x.float() / 2 + 0.5, "b c t h w -> (b t) c h w") for x in (reconstruction, pixels))
            similarity = multiscale_structural_similarity_index_measure(
                shown,
                true,
                data_range=1.0,
                kernel_size=WINDOW,
                betas=scale_weights(min(shown.shape[-2:])),
                normalize="simple",
                reduction="none",
            )
        return 1.0 - similarity.view(len(pixels), -1).mean(dim=1)


def scale_weights(side: int) -> tuple[float, ...]:
    """The weights of the scales at which a picture of a side is larger than the window, coarsest last; their sum is 1.

    The library asks for more room the more scales there are: a side of eleven times the squared number of halvings.
    """
    fitting = [number for number in range(1, len(SCALE_WEIGHTS) + 1) if side // max(1, (number - 1) ** 2, 2 ** (number - 1)) >= WINDOW]
    weights = SCALE_WEIGHTS[: max(fitting, default=1)]
    return tuple(weight / sum(weights) for weight in weights)
