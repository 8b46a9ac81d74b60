"""A file in torchvision's layout of VGG16, with weights drawn at random."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lavin_dit.hashing import file_sha256
from lavin_dit.section import WeightsFile

LAYERS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)
LAST_OF_STAGES = (3, 8, 15, 22, 29)


def vgg_layers() -> nn.Sequential:
    """The layers that `features` numbers, as torchvision's configuration D lists them."""
    layers: list[nn.Module] = []
    narrow = 3
    for wide in LAYERS:
        if isinstance(wide, int):
            layers += [nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU()]
            narrow = wide
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def vgg_tensors(*, with_channel_weights: bool = False) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    tensors = {f"features.{name}": torch.empty_like(weight) for name, weight in vgg_layers().state_dict().items()}
    for weight in tensors.values():
        fan_in = weight[0].numel()
        weight.normal_(std=(2 / fan_in) ** 0.5 if weight.dim() > 1 else 0.05, generator=random)
    # What classifies is in the file as well, and is not read.
    tensors["classifier.0.bias"] = torch.zeros(4)
    if with_channel_weights:
        for index, width in enumerate((64, 128, 256, 512, 512)):
            tensors[f"lin{index}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=random)
    return tensors


def named(path: Path) -> WeightsFile:
    return WeightsFile(path=str(path), sha256=file_sha256(path))
