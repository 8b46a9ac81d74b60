import numpy as np
import pytest

from lavin_dit.sampling import LINEAR_END, starting_noise, time_grid

PAPER_GRID = "0 .0056 .0111 .0167 .0222 .0278 .0333 .0389 .0444 .05 .0524 .0730 .1148 .1777 .2618 .3671 .4936 .6412 .81 1"


def test_twenty_points_are_the_authors_grid() -> None:
    assert [round(float(time), 4) for time in time_grid(20)] == [float(time) for time in PAPER_GRID.split()]


@pytest.mark.parametrize("num_points", range(2, 51))
def test_a_grid_of_any_size_climbs_from_noise_to_data(num_points: int) -> None:
    grid = time_grid(num_points)
    assert len(grid) == num_points
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert np.all(np.diff(grid) > 0)


@pytest.mark.parametrize("num_points", [20, 30, 40])
def test_the_first_half_is_linear_and_ends_at_a_twentieth(num_points: int) -> None:
    half = num_points // 2
    np.testing.assert_allclose(time_grid(num_points)[:half], np.arange(half) * LINEAR_END / (half - 1))


def test_a_grid_needs_two_points() -> None:
    with pytest.raises(ValueError, match="num_points is 1: a time grid needs at least 2 points"):
        time_grid(1)


def test_noise_depends_on_nothing_but_seed_and_index() -> None:
    first = starting_noise((16, 1, 4, 4), seed=3, index=5)
    np.random.default_rng(0).standard_normal(100)
    np.testing.assert_array_equal(starting_noise((16, 1, 4, 4), seed=3, index=5), first)
    assert first.dtype == np.float32
    for seed, index in ((3, 6), (4, 5), (5, 3)):
        assert not np.allclose(starting_noise((16, 1, 4, 4), seed=seed, index=index), first)


def test_noise_is_standard_normal() -> None:
    noise = starting_noise((100, 100), seed=0, index=0)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1.0) < 0.05
