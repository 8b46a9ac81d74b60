import pytest
import torch
from torch import Tensor

from lavin_dit.dit.j_dit import JDit
from lavin_dit.evaluation.held_out_loss import NUM_TIMES, fixed_times, held_out_losses
from lavin_dit.presets import DIT_PRESETS


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def dit() -> JDit:
    module = JDit(DIT_PRESETS["tiny"]).requires_grad_(False)
    module.initialise(torch.Generator().manual_seed(0))
    return module


def test_the_times_halve_the_logit_normal_distribution() -> None:
    times = fixed_times()
    assert times == sorted(times)
    assert len(times) == NUM_TIMES
    assert [a + b for a, b in zip(times, reversed(times), strict=True)] == pytest.approx([1.0] * NUM_TIMES)


def test_a_network_that_answers_nothing_has_the_power_of_the_velocity_as_its_loss(dit: JDit) -> None:
    # A fresh network's last layer is zero; the velocity is the answer less unit noise.
    answers = torch.stack([torch.zeros(16, 1, 8, 8), torch.full((16, 1, 8, 8), 2.0)])
    losses = held_out_losses(dit, draw(2, 16, 3, 8, 8), answers, indices=[0, 1], seed=0)
    assert losses.tolist() == pytest.approx([1.0, 5.0], rel=0.1)


def test_a_querys_loss_does_not_depend_on_its_company(dit: JDit) -> None:
    prompt, answer = draw(3, 16, 3, 4, 4), draw(3, 16, 1, 4, 4, seed=1)
    indices = [4, 7, 2]
    whole = held_out_losses(dit, prompt, answer, indices=indices, seed=0)
    alone = [held_out_losses(dit, prompt[row][None], answer[row][None], indices=[index], seed=0) for row, index in enumerate(indices)]
    torch.testing.assert_close(whole, torch.cat(alone))


def test_the_noise_is_chosen_by_the_querys_number_and_the_seed(dit: JDit) -> None:
    prompt, answer = draw(1, 16, 3, 4, 4), draw(1, 16, 1, 4, 4, seed=1)
    losses = [float(held_out_losses(dit, prompt, answer, indices=[index], seed=seed)) for index, seed in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3
