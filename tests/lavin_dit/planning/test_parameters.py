import pytest
import torch

from lavin_dit.dit.j_dit import JDit
from lavin_dit.planning.parameters import block_parameters, dit_parameters, dit_trained_parameters, modulation_parameters, vae_parameters
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import num_parameters


@pytest.mark.parametrize("size", DIT_PRESETS)
def test_the_j_dits_weights_are_counted_exactly(size: str) -> None:
    shape = DIT_PRESETS[size]
    with torch.device("meta"):
        network = JDit(shape)
    assert dit_parameters(shape) == num_parameters(network)
    assert dit_trained_parameters(shape) == sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    assert block_parameters(shape) + modulation_parameters(shape) == num_parameters(network.blocks[0])


@pytest.mark.parametrize("size", VAE_PRESETS)
def test_the_st_vaes_weights_are_counted_exactly(size: str) -> None:
    with torch.device("meta"):
        network = STVae(VAE_PRESETS[size])
    assert vae_parameters(VAE_PRESETS[size]) == (num_parameters(network.encoder), num_parameters(network.decoder))
