import pytest
import torch

from lavin_dit.dit.j_dit import JDit
from lavin_dit.planning.weights import dit_weights, lora_of, num_trained, num_weights, vae_weights
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.training.finetuning import adapt, freeze
from lavin_dit.training.sharding import trained_weights
from lavin_dit.training_config import LoraConfig
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import num_parameters


@pytest.mark.parametrize("size", DIT_PRESETS)
def test_the_j_dits_weights_are_named_exactly(size: str) -> None:
    with torch.device("meta"):
        network = JDit(DIT_PRESETS[size])
    named = {weight.name: (weight.shape, weight.trained) for weight in dit_weights(DIT_PRESETS[size])}
    assert named == {name: (tuple(weight.shape), weight.requires_grad) for name, weight in network.named_parameters()}


@pytest.mark.parametrize("size", VAE_PRESETS)
def test_the_st_vaes_weights_are_named_exactly(size: str) -> None:
    with torch.device("meta"):
        network = STVae(VAE_PRESETS[size])
    assert {weight.name: weight.size for weight in vae_weights(VAE_PRESETS[size])} == {
        name: weight.numel() for name, weight in network.named_parameters()
    }


@pytest.mark.parametrize("frozen", [(), ("encoder",), ("decoder.stages.1.", "decoder.norm_out.scale"), ("encoder.conv_in.bias",)])
def test_frozen_weights_are_those_that_training_freezes(frozen: tuple[str, ...]) -> None:
    shape = VAE_PRESETS["tiny"]
    with torch.device("meta"):
        network = STVae(shape)
    freeze(network, frozen, key="frozen")
    assert num_trained(vae_weights(shape), frozen) == sum(weight.numel() for weight in trained_weights(network).values())


@pytest.mark.parametrize("frozen", [(), ("blocks.0", "blocks.1.attention")])
def test_low_rank_updates_have_the_weights_that_the_library_gives_them(frozen: tuple[str, ...]) -> None:
    shape, lora = DIT_PRESETS["tiny"], LoraConfig(rank=4, alpha=8.0)
    network, weights = JDit(shape), dit_weights(shape)
    freeze(network, frozen, key="frozen")
    adapt(network, lora, torch.Generator())
    assert num_trained(weights, frozen, lora) == sum(weight.numel() for weight in trained_weights(network).values())
    assert num_weights(weights) + lora_of(weights, frozen, lora) == num_parameters(network)
