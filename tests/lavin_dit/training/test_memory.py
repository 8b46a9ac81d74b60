import torch

from lavin_dit.dit.j_dit import JDit
from lavin_dit.presets import DIT_PRESETS
from lavin_dit.training.memory import BYTES_PER_PARAMETER, dit_training_bytes
from lavin_dit.weights import num_parameters


def test_without_a_batch_it_is_weights_and_what_the_optimizer_keeps() -> None:
    network = JDit(DIT_PRESETS["tiny"])
    average = [weight.detach().clone() for weight in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters())
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    held = [*network.parameters(), *(weight.grad for weight in network.parameters()), *moments, *average]
    size = sum(tensor.nbytes for tensor in held if tensor is not None)
    assert dit_training_bytes(DIT_PRESETS["tiny"], samples=0, max_pairs=2, resolution=32) == size
    assert size == num_parameters(network) * BYTES_PER_PARAMETER


def test_activations_grow_with_samples_and_with_pixels() -> None:
    def activations(samples: int, resolution: int) -> int:
        whole = dit_training_bytes(DIT_PRESETS["tiny"], samples=samples, max_pairs=2, resolution=resolution)
        return whole - dit_training_bytes(DIT_PRESETS["tiny"], samples=0, max_pairs=2, resolution=resolution)

    assert activations(4, 32) == 2 * activations(2, 32)
    assert activations(2, 64) == 4 * activations(2, 32)


def test_the_papers_largest_size_does_not_fit_one_device_of_80_gib_without_sharding() -> None:
    size_gib = dit_training_bytes(DIT_PRESETS["3.4B"], samples=10, max_pairs=5, resolution=256) / 2**30
    assert 80 < size_gib < 800
