import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.planning.rehearsal import allocated_peak
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import discriminator_flops, discriminator_layers, vgg_flops, vgg_kept, vgg_weights
from lavin_dit.training_config import AdversarialConfig
from lavin_dit.vae.discriminator import PatchDiscriminator
from lavin_dit.vae.perceptual import FeatureDistance
from lavin_dit.vae.vgg import Vgg16
from lavin_dit.weights import num_parameters


def counted(network: nn.Module, *pixels: int) -> int:
    """What torch counts of one pass."""
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(pixels, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize("size", [(1, 64, 64), (5, 64, 96)])
@pytest.mark.parametrize(("width", "num_layers"), [(16, 2), (32, 4)])
def test_the_discriminator_is_counted_exactly(width: int, num_layers: int, size: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        network = PatchDiscriminator(width, num_layers)
    config = AdversarialConfig(weight=1.0, first_step=0, width=width, num_layers=num_layers, learning_rate=1e-4)
    layers = list(discriminator_layers(config, Volume(*size)))
    assert sum(layer.weights for layer in layers) == num_parameters(network)
    assert discriminator_flops(config, Volume(*size)) == counted(network, 1, 3, *size)


def test_vgg16_is_counted_exactly() -> None:
    with torch.device("meta"):
        network = Vgg16()
    assert vgg_weights() == num_parameters(network)
    assert vgg_flops(Volume(3, 64, 48)) == counted(network, 3, 3, 64, 48)


def test_a_perceptual_distance_keeps_what_the_allocator_gives_out() -> None:
    distance, pixels = FeatureDistance(Vgg16()), torch.rand(2, 3, 1, 64, 64)
    shown = torch.rand(2, 3, 1, 64, 64, requires_grad=True)
    kept: list[torch.Tensor] = []
    assert allocated_peak(lambda: kept.append(distance(shown, pixels))) == pytest.approx(2 * vgg_kept(Volume(1, 64, 64)), rel=0.15)
