import numpy as np
import pytest
import torch
from torch import Tensor

from lavin_dit.config import SamplingConfig
from lavin_dit.dit.j_dit import JDit
from lavin_dit.flow import euler
from lavin_dit.inference import (
    assemble_prompt,
    decode_images,
    drop_prompt,
    encode_images,
    encode_prompt,
    predict,
    sample_answer,
    to_model,
    to_pixels,
)
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.sampling import time_grid
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import LatentStatistics, TrainedVae


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def vae() -> TrainedVae:
    module = STVae(VAE_PRESETS["tiny"]).requires_grad_(False)
    module.initialise(torch.Generator().manual_seed(0))
    return TrainedVae(module, LatentStatistics(shift=0.1, scale=2.0), 16)


@pytest.fixture(scope="module")
def dit() -> JDit:
    module = JDit(DIT_PRESETS["tiny"]).requires_grad_(False)
    module.initialise(torch.Generator().manual_seed(0))
    for index, parameter in enumerate(module.parameters()):
        parameter += 0.2 * draw(*parameter.shape, seed=index)
    return module


def test_every_pixel_value_comes_back() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    tensor = to_model(values)
    assert (float(tensor.min()), float(tensor.max()), tensor.shape) == (-1.0, 1.0, (3, 16, 16))
    np.testing.assert_array_equal(to_pixels(tensor), values)
    clip = np.stack([values, 255 - values])
    assert to_model(clip).shape == (3, 2, 16, 16)
    np.testing.assert_array_equal(to_pixels(to_model(clip)), clip)


def test_pixels_beyond_the_range_are_clamped() -> None:
    assert to_pixels(torch.tensor([-9.0, 9.0, 0.0]).view(3, 1, 1)).tolist() == [[[0, 255, 128]]]


def test_a_prompt_interleaves_pairs_and_ends_with_the_query() -> None:
    inputs = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1, 1, 1).expand(1, 2, 16, 1, 2, 2)
    query = torch.full((1, 16, 1, 2, 2), 30.0)
    prompt = assemble_prompt(inputs, inputs + 1, query)
    assert prompt.shape == (1, 16, 5, 2, 2)
    assert prompt[0, 3, :, 1, 0].tolist() == [10, 11, 20, 21, 30]


def test_the_frames_of_a_clip_stay_together_in_a_prompt() -> None:
    inputs = torch.tensor([[10.0, 11.0], [20.0, 21.0]]).view(1, 2, 1, 2, 1, 1).expand(1, 2, 16, 2, 2, 2)
    query = torch.tensor([30.0, 31.0]).view(1, 1, 2, 1, 1).expand(1, 16, 2, 2, 2)
    prompt = assemble_prompt(inputs, inputs + 5, query)
    assert prompt[0, 3, :, 1, 0].tolist() == [10, 11, 15, 16, 20, 21, 25, 26, 30, 31]
    assert drop_prompt(prompt, num_frames=2)[0, 3, :, 1, 0].tolist() == [0, 30, 31]


def test_a_dropped_prompt_is_a_zero_frame_and_the_query() -> None:
    prompt = draw(2, 16, 5, 2, 2)
    dropped = drop_prompt(prompt, num_frames=1)
    assert dropped.shape == (2, 16, 2, 2, 2)
    assert torch.equal(dropped[:, :, 0], torch.zeros(2, 16, 2, 2))
    assert torch.equal(dropped[:, :, 1], prompt[:, :, 4])


def test_without_pairs_the_prompt_is_the_dropped_one(vae: TrainedVae) -> None:
    pairs, none, queries = draw(2, 3, 3, 1, 16, 16), torch.empty(2, 0, 3, 1, 16, 16), draw(2, 3, 1, 16, 16, seed=2)
    shown = encode_prompt(vae, context_inputs=pairs, context_targets=pairs, queries=queries)
    alone = encode_prompt(vae, context_inputs=none, context_targets=none, queries=queries)
    torch.testing.assert_close(alone, drop_prompt(shown, num_frames=1), rtol=1e-4, atol=1e-5)


def test_without_pairs_guidance_changes_nothing(vae: TrainedVae, dit: JDit) -> None:
    given = {
        "context_inputs": torch.empty(2, 0, 3, 1, 16, 16),
        "context_targets": torch.empty(2, 0, 3, 1, 16, 16),
        "queries": draw(2, 3, 1, 16, 16),
        "noise": draw(2, 16, 1, 2, 2, seed=3),
    }
    plain, guided = (
        predict(vae, dit, **given, sampling=SamplingConfig(num_points=4, guidance_scale=scale, num_pairs=0)) for scale in (1.0, 3.0)
    )
    torch.testing.assert_close(plain, guided, rtol=1e-4, atol=1e-5)


def test_latents_are_normalised_and_restored_around_the_vae(vae: TrainedVae) -> None:
    images = draw(2, 3, 16, 16)
    latents = encode_images(vae, images)
    mean = vae.module.encode(images[:, :, None]).mean[:, :, 0]
    torch.testing.assert_close(latents, (mean - 0.1) * 2.0)
    torch.testing.assert_close(decode_images(vae, latents), vae.module.decode(mean[:, :, None])[:, :, 0], rtol=1e-4, atol=1e-5)


def test_an_image_is_encoded_on_its_own(vae: TrainedVae) -> None:
    images = draw(3, 3, 16, 16)
    torch.testing.assert_close(encode_images(vae, images)[:1], encode_images(vae, images[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0])
def test_guidance_moves_from_the_dropped_prompt_towards_the_full_one(dit: JDit, scale: float) -> None:
    prompt, noise = draw(1, 16, 3, 2, 2), draw(1, 16, 1, 2, 2, seed=1)

    def velocity(z: Tensor, index: int) -> Tensor:
        time = torch.tensor([time_grid(6)[index]], dtype=torch.float32)
        free, guided = dit(z, drop_prompt(prompt, num_frames=1), time), dit(z, prompt, time)
        return free + scale * (guided - free)

    sampled = sample_answer(dit, prompt, noise=noise, num_points=6, guidance_scale=scale)
    torch.testing.assert_close(sampled, euler(velocity, noise, num_points=6), rtol=1e-3, atol=1e-4)


def test_guidance_changes_the_answer(dit: JDit) -> None:
    prompt, noise = draw(1, 16, 3, 2, 2), draw(1, 16, 1, 2, 2, seed=1)
    plain, guided = (sample_answer(dit, prompt, noise=noise, num_points=4, guidance_scale=scale) for scale in (1.0, 2.0))
    assert not torch.allclose(plain, guided, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("t", "f"), [(1, 1), (5, 2)])
def test_a_prediction_does_not_depend_on_its_batch(vae: TrainedVae, dit: JDit, t: int, f: int) -> None:
    sampling = SamplingConfig(num_points=4, guidance_scale=1.5, num_pairs=2)
    given = {
        "context_inputs": draw(3, 2, 3, t, 16, 16),
        "context_targets": draw(3, 2, 3, t, 16, 16, seed=1),
        "queries": draw(3, 3, t, 16, 16, seed=2),
        "noise": draw(3, 16, f, 2, 2, seed=3),
    }
    whole = predict(vae, dit, **given, sampling=sampling)
    assert whole.shape == (3, 3, t, 16, 16)
    for row in range(3):
        alone = predict(vae, dit, **{name: tensor[row : row + 1] for name, tensor in given.items()}, sampling=sampling)
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-3, atol=1e-4)
