from xml.etree import ElementTree

import numpy as np
import pytest

from lavin_dit.evaluation.charts import curve, running_mean

STEPS = np.arange(0.0, 400.0, 10.0)


def test_a_drawing_is_well_formed_names_no_other_site_and_takes_the_pages_colours() -> None:
    svg = curve("loss", STEPS, np.exp(-STEPS / 40))
    assert ElementTree.fromstring(svg).tag == "svg"  # noqa: S314 - our own text
    assert "http" not in svg
    assert "#0" not in svg
    assert "var(--accent)" in svg
    assert "<style" not in svg


def test_the_same_numbers_give_the_same_drawing_and_another_name_other_ids() -> None:
    first, second, other = (curve(name, STEPS, STEPS) for name in ("vae loss", "vae loss", "dit loss"))
    assert first == second
    ids = [{part.split('"')[0] for part in svg.split(' id="')[1:]} for svg in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_drawing_says_in_words_where_the_curve_starts_and_ends() -> None:
    svg = curve("loss <1>", np.array([10.0, 20.0, 30.0]), np.array([3.0, np.nan, 0.5]))
    label = ElementTree.fromstring(svg).attrib["aria-label"]  # noqa: S314 - our own text
    assert label == "loss <1>: from 3 at step 10 to 0.5 at step 30, lowest 0.5"


@pytest.mark.parametrize("values", [[], [np.nan, np.inf], [1.0], [0.0, 0.0]])
def test_a_history_with_little_in_it_is_drawn_all_the_same(values: list[float]) -> None:
    assert curve("loss", np.arange(float(len(values))), np.array(values, np.float64)).startswith("<svg")


def test_a_running_mean_keeps_straight_lines_and_smooths_noise() -> None:
    np.testing.assert_allclose(running_mean(STEPS), STEPS)
    noise = np.random.default_rng(0).standard_normal(200)
    assert running_mean(noise).std() < noise.std() / 2
