import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import DUEL_FORWARDS, discriminator_flops
from lavin_dit.training_config import AdversarialConfig
from lavin_dit.vae.adversarial import fight, per_sample, pull_norm, slope_of
from lavin_dit.vae.discriminator import PatchConv3d, PatchDiscriminator


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def make(width: int = 8, num_layers: int = 3) -> PatchDiscriminator:
    discriminator = PatchDiscriminator(width, num_layers)
    discriminator.initialise(torch.Generator().manual_seed(0))
    return discriminator


@pytest.mark.parametrize(
    ("size", "patches"), [((1, 32, 32), (1, 4, 4)), ((5, 32, 48), (2, 4, 6)), ((9, 16, 16), (3, 2, 2)), ((1, 64, 64), (1, 8, 8))]
)
def test_a_picture_and_a_clip_get_one_score_a_patch(size: tuple[int, ...], patches: tuple[int, ...]) -> None:
    assert make()(draw(2, 3, *size)).shape == (2, *patches)


def test_the_shortcut_for_one_frame_is_the_convolution_itself() -> None:
    discriminator, picture = make(), draw(2, 3, 1, 32, 32)
    x = picture
    for layer in (*discriminator.layers, discriminator.score):
        x = F.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding) if isinstance(layer, PatchConv3d) else layer(x)
    torch.testing.assert_close(discriminator(picture), x[:, 0], rtol=1e-4, atol=1e-6)


def test_a_score_does_not_depend_on_the_others_of_the_batch() -> None:
    discriminator, clips = make(), draw(3, 3, 5, 32, 32)
    alone = torch.cat([discriminator(clip[None]) for clip in clips])
    torch.testing.assert_close(discriminator(clips), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 32, 48), (5, 32, 32)])
def test_operations_are_as_many_as_torch_counts(size: tuple[int, int, int]) -> None:
    discriminator = make()
    config = AdversarialConfig(weight=1.0, first_step=0, width=8, num_layers=3, learning_rate=1e-4)
    forward = 2 * discriminator_flops(config, Volume(*size))
    with FlopCounterMode(display=False) as counter:
        discriminator(draw(2, 3, *size))
    assert counter.get_total_flops() == forward
    # Torch cannot count inside of autograd.grad, which adds the pull's backward pass to the pixels.
    with FlopCounterMode(display=False) as counter:
        (discriminator(draw(2, 3, *size).requires_grad_()).mean() + discriminator(draw(2, 3, *size)).mean()).backward()
    assert counter.get_total_flops() == pytest.approx((DUEL_FORWARDS - 1) * forward, rel=0.1)


def test_the_hinge_loss_is_one_where_nothing_is_known_and_zero_where_all_is() -> None:
    for real, fake, expected in ((0.0, 0.0, 1.0), (2.0, -2.0, 0.0), (-1.0, 0.5, 1.75)):
        pixels, restored = torch.full((1, 1, 1, 4, 4), real), torch.full((1, 1, 1, 4, 4), fake).requires_grad_()
        duel = fight(torch.nn.Identity(), restored, pixels)
        assert duel.hinge.detach().item() == expected
        assert duel.adversarial.item() == -fake
        torch.testing.assert_close(duel.pull, torch.full_like(pixels, -1 / 16))


def test_what_the_network_learns_reaches_no_weight_of_the_discriminator_and_the_hinge_loss_reaches_no_other() -> None:
    discriminator, network = make(), torch.nn.Conv3d(3, 3, 1)
    pixels = draw(2, 3, 1, 32, 32)
    restored = network(pixels)
    duel = fight(discriminator, restored.detach().requires_grad_(), pixels)
    assert all(weight.grad is None for weight in discriminator.parameters())
    slope_of((restored * duel.pull).sum()).backward()
    assert all(weight.grad is None for weight in discriminator.parameters())
    assert all(weight.grad is not None for weight in network.parameters())
    network.zero_grad()
    duel.hinge.backward()
    assert all(weight.grad is not None for weight in discriminator.parameters())
    assert sum(float(weight.grad.abs().sum()) for weight in discriminator.parameters() if weight.grad is not None) > 0
    assert all(weight.grad is None for weight in network.parameters())


def test_the_networks_own_reconstruction_is_not_taken() -> None:
    network = torch.nn.Conv3d(3, 3, 1)
    with pytest.raises(AssertionError, match="the hinge loss would train it as well"):
        fight(make(), network(draw(1, 3, 1, 16, 16)), draw(1, 3, 1, 16, 16))


def test_a_pulls_norm_is_the_mean_over_the_samples() -> None:
    pull = torch.zeros(2, 3, 1, 2, 2)
    pull[0, :, 0, 0, 0] = torch.tensor([3.0, 4.0, 0.0])
    assert float(pull_norm(pull)) == 2.5


def test_a_slope_has_no_height_unless_it_is_no_number() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    slope = slope_of(x.square())
    slope.backward()
    assert (slope.detach().item(), x.grad) == (0.0, torch.tensor(6.0))
    assert slope_of(torch.tensor(float("nan"))).isnan()


def test_a_little_training_tells_real_pictures_from_smooth_ones() -> None:
    discriminator = make()
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.9))

    def pair(seed: int) -> tuple[Tensor, Tensor]:
        real = draw(8, 3, 1, 32, 32, seed=seed)
        return real, F.avg_pool3d(real, (1, 3, 3), 1, (0, 1, 1)) * 3

    for seed in range(40):
        real, smooth = pair(seed)
        fight(discriminator, smooth.requires_grad_(), real).hinge.backward()
        optimizer.step()
        optimizer.zero_grad()
    real, smooth = pair(1000)
    with torch.no_grad():
        scores = per_sample(discriminator(real)), per_sample(discriminator(smooth))
    assert scores[0].min() > scores[1].max() + 0.5


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_narrow_one_scores_a_single_picture_down_to_its_last_pixel(width: int) -> None:
    assert make(width, 4)(draw(1, 3, 1, 16, 16)).shape == (1, 1, 1, 1)
