import pytest
import torch
from torch import Tensor

from lavin_dit.flow import euler, flow_loss, logit_normal_time, path_sample
from lavin_dit.sampling import time_grid


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_the_path_goes_from_noise_to_data() -> None:
    data, noise = draw(2, 16, 1, 4, 4), draw(2, 16, 1, 4, 4, seed=1)
    path = path_sample(data, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(path.z_t[0], noise[0])
    assert torch.equal(path.z_t[1], data[1])


def test_the_velocity_is_the_paths_derivative() -> None:
    data, noise = draw(1, 16, 1, 4, 4).double(), draw(1, 16, 1, 4, 4, seed=1).double()
    early, late = (path_sample(data, noise, torch.tensor([t], dtype=torch.float64)) for t in (0.25, 0.75))
    torch.testing.assert_close((late.z_t - early.z_t) / 0.5, early.velocity)
    torch.testing.assert_close(early.z_t + 0.75 * early.velocity, data)


@pytest.mark.parametrize("num_points", [2, 7, 20])
def test_euler_is_exact_on_a_straight_path(num_points: int) -> None:
    data, noise = draw(1, 16, 1, 4, 4).double(), draw(1, 16, 1, 4, 4, seed=1).double()
    asked: list[int] = []

    def velocity(z: Tensor, index: int) -> Tensor:
        asked.append(index)
        return (data - z) / (1.0 - float(time_grid(num_points)[index]))

    torch.testing.assert_close(euler(velocity, noise, num_points=num_points), data)
    assert asked == list(range(num_points - 1))


def test_times_are_logit_normal_and_then_shifted() -> None:
    normal = draw(20_000)
    time = logit_normal_time(normal, shift=1.0)
    torch.testing.assert_close(torch.logit(time), normal, rtol=1e-3, atol=1e-3)
    assert abs(float(time.mean()) - 0.5) < 0.01
    shifted = logit_normal_time(normal, shift=3.0)
    torch.testing.assert_close(shifted, time / (time + 3.0 * (1.0 - time)))
    assert float(shifted.mean()) < 0.35
    assert float(shifted.min()) > 0.0


def test_the_loss_is_squared_plus_a_tenth_of_absolute_error() -> None:
    velocity = draw(3, 16, 1, 4, 4)
    loss = flow_loss(velocity + 0.5, velocity, absolute_weight=0.1)
    torch.testing.assert_close((loss.squared, loss.absolute, loss.total), tuple(torch.tensor(value) for value in (0.25, 0.5, 0.3)))
    torch.testing.assert_close(loss.per_sample, torch.full((3,), 0.25))
