import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.evaluation.trend_charts import axes_of, draw_answers, draw_losses, draw_metrics, short


def cells(level: float) -> dict[str, Any]:
    return {str(count): {"mean": level - 0.01 * count, "reach": 0.02} for count in (0, 1, 8)}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    values = {"values": {"2x48": cells(0.8), "4x192": cells(0.5)}}
    return {
        "models": [{"size": "2x48", "num_parameters": 166_000}, {"size": "4x192", "num_parameters": 4_590_000}],
        "num_pairs": [0, 1, 8],
        "loss": {"trained": values, "held_out": values},
        "tasks": {
            "depth": {"metric": "abs_rel", "held_out": False, **values},
            "denoising": {"metric": "psnr", "held_out": True, **values},
        },
    }


def pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_drawings_are_pictures_with_something_on_them_and_the_same_every_time(document: dict[str, Any]) -> None:
    for draw in (
        lambda: draw_losses(document),
        lambda: draw_metrics(document, over_pairs=True),
        lambda: draw_metrics(document, over_pairs=False),
    ):
        first = draw()
        assert draw() == first
        assert len(np.unique(pixels(first).reshape(-1, 3), axis=0)) > 10


def test_a_study_without_held_out_tasks_is_drawn_too(document: dict[str, Any]) -> None:
    narrow, wide = pixels(draw_losses({**document, "loss": {"trained": document["loss"]["trained"]}})), pixels(draw_losses(document))
    assert narrow.shape[1] < wide.shape[1]


def test_a_value_that_was_not_measured_leaves_a_gap(document: dict[str, Any]) -> None:
    hole = {"values": {"2x48": cells(0.8), "4x192": {**cells(0.5), "1": {"mean": None, "reach": None}}}}
    assert draw_losses({**document, "loss": {"trained": hole}}) != draw_losses(
        {**document, "loss": {"trained": document["loss"]["trained"]}}
    )


def test_sizes_stand_by_their_parameters_and_pairs_side_by_side(document: dict[str, Any]) -> None:
    sizes, pairs = axes_of(document)
    assert sizes.positions == (166_000.0, 4_590_000.0)
    assert pairs.positions == (0.0, 1.0, 2.0)
    assert sizes.names == ("166 k", "4.6 M")


@pytest.mark.parametrize(
    ("number", "text"), [(950, "0.95 k"), (29_760, "30 k"), (4_590_000, "4.6 M"), (15_250_000, "15 M"), (3.4e9, "3400 M")]
)
def test_numbers_of_parameters_are_short(number: float, text: str) -> None:
    assert short(number) == text


def test_answers_stand_in_rows_of_sizes_and_columns_of_pairs() -> None:
    colours = [[(200, 0, 0), (0, 200, 0)], [(0, 0, 200), (200, 200, 0)]]
    answers = [[np.full((16, 16, 3), colour, np.uint8) for colour in row] for row in colours]
    ends = (np.full((16, 16, 3), 30, np.uint8), np.full((16, 16, 3), 220, np.uint8))
    shown = pixels(draw_answers("depth", ["2x48", "4x192"], ["0", "8"], answers, ends))
    places = {colour: np.argwhere((shown == colour).all(axis=-1)).mean(axis=0) for row in colours for colour in row}
    (red, green), (blue, yellow) = ([places[colour] for colour in row] for row in colours)
    assert red[0] == green[0] < blue[0] == yellow[0]
    assert red[1] == blue[1] < green[1] == yellow[1]
    assert np.argwhere((shown == 30).all(axis=-1)).mean(axis=0)[1] < red[1]
    assert np.argwhere((shown == 220).all(axis=-1)).mean(axis=0)[1] > green[1]
