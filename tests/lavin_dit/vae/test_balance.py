import json

import pytest

from lavin_dit.vae.balance import ADVERSARIAL_PULL, MAX_WEIGHT, RECONSTRUCTION_PULL, Balance


def norms(reconstruction: float, adversarial: float) -> dict[str, float]:
    return {RECONSTRUCTION_PULL: reconstruction, ADVERSARIAL_PULL: adversarial, "squared": 7.0}


def test_nothing_counts_before_a_step_is_known() -> None:
    assert Balance().weight(0.5) == 0.0


def test_the_weight_brings_one_gradient_to_a_share_of_the_other() -> None:
    balance = Balance()
    balance.observe(norms(0.2, 4.0))
    assert balance.weight(0.5) * 4.0 == pytest.approx(0.5 * 0.2)


def test_norms_are_running_means_that_begin_as_plain_ones() -> None:
    balance = Balance()
    for reconstruction in (1.0, 2.0, 6.0):
        balance.observe(norms(reconstruction, 1.0))
    assert balance.weight(1.0) == pytest.approx(3.0)
    for _ in range(2000):
        balance.observe(norms(0.5, 1.0))
    assert balance.weight(1.0) == pytest.approx(0.5, rel=1e-3)
    balance.observe(norms(100.5, 1.0))
    assert balance.weight(1.0) == pytest.approx(0.5 + 0.01 * 100, rel=1e-2)


def test_a_discriminator_that_pulls_at_nothing_is_not_blown_up() -> None:
    balance = Balance()
    balance.observe(norms(1.0, 0.0))
    assert balance.weight(0.5) == 0.5 * MAX_WEIGHT


def test_it_goes_on_from_what_a_checkpoint_holds_to_the_last_bit() -> None:
    balance, resumed = Balance(), Balance()
    for number in range(5):
        balance.observe(norms(0.1 * number + 1 / 3, 1 / 7 + number))
    resumed.take_up(json.loads(json.dumps(balance.state())))
    for each in (balance, resumed):
        each.observe(norms(0.7, 0.9))
    assert resumed.weight(0.3) == balance.weight(0.3)
    assert resumed.state() == balance.state()
