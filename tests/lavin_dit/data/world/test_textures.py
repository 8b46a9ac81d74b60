import numpy as np
import pytest

from lavin_dit.data.world.textures import PATTERNS, Material, gather_paints, noise, paint_ground


def points_of(count: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-3, 3, (3, count)).astype(np.float32)


def material_of(pattern: str) -> Material:
    return Material(pattern, (0.1, 0.2, 0.3), (0.9, 0.8, 0.7), 0.5, 0.25, 0.2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_mixes_its_two_colours_and_nothing_else(pattern: str) -> None:
    colours = gather_paints([material_of(pattern)]).paint(np.zeros(4000, np.intp), points_of())
    shares = (colours - np.array([[0.1], [0.2], [0.3]])) / np.array([[0.8], [0.6], [0.4]])
    np.testing.assert_allclose(shares, shares[:1].repeat(3, axis=0), atol=1e-5)
    assert shares.min() >= -1e-6
    assert shares.max() <= 1 + 1e-6
    if pattern != "plain":
        assert 0.2 < shares.mean() < 0.8
        assert shares.std() > 0.1


def test_materials_side_by_side_are_painted_as_each_alone() -> None:
    points, which = points_of(), np.arange(4000) % len(PATTERNS)
    together = gather_paints([material_of(pattern) for pattern in PATTERNS]).paint(which, points)
    for number, pattern in enumerate(PATTERNS):
        own = np.flatnonzero(which == number)
        alone = gather_paints([material_of(pattern)]).paint(np.zeros(own.size, np.intp), points[:, own])
        np.testing.assert_array_equal(together[:, own], alone)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_noise_is_spread_over_its_range_smooth_and_of_no_short_period(dimensions: int) -> None:
    places = np.random.default_rng(1).uniform(-500, 500, (dimensions, 20_000)).astype(np.float32)
    values = noise(places)
    assert values.min() >= 0
    assert values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.02
    assert values.std() > 0.1
    assert np.abs(noise(places + np.float32(0.01)) - values).max() < 0.15
    assert abs(np.corrcoef(noise(places + 64), values)[0, 1]) < 0.1


def test_noise_is_continuous_over_the_borders_of_its_cells() -> None:
    border = np.arange(-20, 20, dtype=np.float32)
    before, after = (noise(np.stack([border + step, border * 0 + np.float32(0.3)])) for step in (np.float32(-1e-4), np.float32(1e-4)))
    np.testing.assert_allclose(before, after, atol=2e-3)


def test_noise_has_values_that_no_machine_may_change() -> None:
    """Products of whole numbers, and sums and products of fractions: nothing that a processor may round in its own way."""
    places = np.array([[0.0, 0.5, -3.25, 1000.75], [0.0, 0.25, 7.5, -0.125]], np.float32)
    np.testing.assert_allclose(noise(places), [0.296473, 0.463026, 0.583175, 0.704438], atol=2e-6)


def test_cells_of_the_ground_melt_into_their_mean_far_away() -> None:
    points = points_of() * np.array([[1], [0], [1]], np.float32)
    near, far = (paint_ground(material_of("checker"), points, np.full(4000, metres, np.float32)) for metres in (1.0, 60.0))
    assert near.std(axis=1).min() > 0.15
    np.testing.assert_allclose(far, np.array([[0.5], [0.5], [0.5]]).repeat(4000, axis=1), atol=1e-3)
