"""The features of VGG16 that perceptual distances compare, filled from a file in torchvision's layout.

Source: Simonyan and Zisserman, 2015 (the network); Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric,
2018 (which features, their scaling, and the weights of their channels).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.presets import VGG_STAGES
from lavin_dit.section import WeightsFile
from lavin_dit.weights import CONTENT_ERRORS, WEIGHTS_FILE, are_numbers

MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the training pictures' channels, where values lie in [-1, 1]."""


class Vgg16(nn.Module):
    """The 13 convolutions of VGG16; frozen, since it only judges."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = [width for width, count in VGG_STAGES for _ in range(count)]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip([3, *channels], channels, strict=False))
        for index, (width, _) in enumerate(VGG_STAGES):
            self.register_buffer(f"channel_weights_{index}", torch.ones(width))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """The last features of every stage. Shapes: `(b, 3, h, w)` in [-1, 1], to five of `(b, c, h', w')`."""
        x = (pictures - self.mean) / self.deviation
        features: list[Tensor] = []
        convolutions = iter(self.convolutions)
        for _, count in VGG_STAGES:
            if features:
                x = F.max_pool2d(x, 2)
            for _ in range(count):
                x = F.relu(next(convolutions)(x))
            features.append(x)
        return features

    @property
    def channel_weights(self) -> list[Tensor]:
        """How much each channel of each stage counts. Shapes: `(c,)`."""
        return [self.get_buffer(f"channel_weights_{index}") for index in range(len(VGG_STAGES))]


def load_vgg(file: WeightsFile) -> Vgg16:
    """Reads the convolutions, `features.0.weight` and so on.

    LPIPS's weights of the channels, `lin0.model.1.weight` and so on, are taken where there are some.
    Raises: InputError naming the file where it cannot be read, is not the one whose hash was given, or holds something else.
    """
    path = _checked_path(file)
    tensors = _read(path)
    vgg = Vgg16()
    for number, convolution in zip(_positions(), vgg.convolutions, strict=True):
        for kind, weight in convolution.named_parameters():
            _fill(weight, tensors, f"features.{number}.{kind}", path)
    if any(str(name).startswith("lin") for name in tensors):
        for index, weights in enumerate(vgg.channel_weights):
            _fill(weights.view(1, -1, 1, 1), tensors, f"lin{index}.model.1.weight", path)
    return vgg


def _positions() -> list[int]:
    """Where torchvision's list of layers has its convolutions: each is followed by its ReLU, each stage by its pooling."""
    positions, next_layer = [], 0
    for _, count in VGG_STAGES:
        positions += [next_layer + 2 * number for number in range(count)]
        next_layer += 2 * count + 1
    return positions


def _checked_path(file: WeightsFile) -> Path:
    path = Path(file.path)
    path = path / WEIGHTS_FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"perceptual.features.path is {file.path}: there is no such file")
    sha256 = file_sha256(path)
    if sha256 != file.sha256:
        raise InputError(f"{path}: its sha256 is {sha256}, and perceptual.features.sha256 asks for {file.sha256}")
    return path


def _read(path: Path) -> Mapping[str, object]:
    try:
        read = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, *CONTENT_ERRORS) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as weights without running code ({reason}): use .safetensors, .pth or .pt") from error
    if not isinstance(read, Mapping):
        raise InputError(f"{path}: holds a {type(read).__name__}: must map names to weights, such as features.0.weight")
    return read


@torch.no_grad()
def _fill(weight: Tensor, tensors: Mapping[str, object], name: str, path: Path) -> None:
    found = tensors.get(name)
    if not isinstance(found, Tensor):
        raise InputError(f"{path}: has no {name}: must hold VGG16 in torchvision's layout")
    if found.shape != weight.shape:
        raise InputError(f"{path}: its {name} is {tuple(found.shape)}: VGG16's is {tuple(weight.shape)}")
    if not are_numbers(found):
        raise InputError(f"{path}: its {name} must hold finite floating-point numbers")
    weight.copy_(found)
