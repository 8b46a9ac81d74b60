"""From the evaluations of two models to the drawings, on folders such as `evaluate` leaves."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.curves import read_curve, write_curve
from components.evaluate import QUERY_COLUMNS
from components.folders import read_json, write_json
from components.study import resize
from components.trends import summary, write_trends
from lavin_dit.config import load_config
from lavin_dit.data.shards.picture_files import encode_png
from lavin_dit.data.tasks import task_of
from lavin_dit.errors import InputError
from lavin_dit.evaluation.metrics import primary_metric
from lavin_dit.training_config import TrainDitConfig

TASKS = ("depth", "foreground", "denoising")
SCENES = tuple(f"scene-{number}" for number in range(6))
SIDE = 8


@pytest.fixture(scope="module")
def section() -> TrainDitConfig:
    return load_config(Path(__file__).parents[2] / "recipes" / "study.yaml").train_dit


def make_evaluation(folder: Path, num_pairs: int, level: float) -> Path:
    """Where every loss and metric is `level`, give or take what a scene costs; a depth of a scene has no metric."""
    (folder / "examples").mkdir(parents=True)
    write_json(folder / "config.json", {"sampling": {"num_pairs": num_pairs}})
    with (folder / "queries.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=QUERY_COLUMNS)
        writer.writeheader()
        for task in TASKS:
            for number, scene in enumerate(SCENES):
                names = {"task": task, "scene": scene, "key": f"{task}-{scene}"}
                value = level + number + 0.001 * ((7 * number + num_pairs) % 5)
                writer.writerow({**names, "metric": "loss", "model": value})
                shown = "" if (task, number) == ("depth", 0) else value
                writer.writerow(
                    {**names, "metric": primary_metric(task_of(task)).name, "model": shown, "query_unchanged": 9.0, "ceiling": 0.0}
                )
                writer.writerow({**names, "metric": "another", "model": 77.0})
            picture = np.full((2 * SIDE, 3 * SIDE, 3), round(10 * level), np.uint8)
            (folder / "examples" / f"{task}.png").write_bytes(encode_png(picture))
    return folder


@pytest.fixture(scope="module")
def curves(section: TrainDitConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A large model that is better by 1, and better by 0.5 with two pairs; the larger one comes first."""
    root = tmp_path_factory.mktemp("study")
    folders = []
    for size, num_parameters, level in (("4x192", 4_600_000, 4.0), ("2x48", 166_000, 5.0)):
        (root / size / "dit").mkdir(parents=True)
        write_json(root / size / "dit" / "metrics.json", {"loss": 0.3, "num_parameters": num_parameters})
        evaluations = [make_evaluation(root / size / str(count), count, level - 0.25 * count) for count in (0, 2)]
        folders.append(root / size / "curve")
        folders[-1].mkdir()
        write_curve(folders[-1], size=size, section=resize(section, size), dit=root / size / "dit", evaluations=evaluations)
    return folders


def test_a_curve_says_what_the_model_is_and_what_it_scored(curves: list[Path]) -> None:
    curve = read_curve(curves[1])
    assert (curve.size, curve.num_parameters, curve.train_loss) == ("2x48", 166_000, 0.3)
    assert curve.held_out == ("denoising", "foreground")
    assert curve.learning_rate == pytest.approx(2 * read_curve(curves[0]).learning_rate)
    assert curve.num_pairs == (0, 2)
    assert curve.tasks == TASKS
    assert {score.metric for score in curve.scores} == {"loss", "abs_rel", "miou", "psnr"}
    assert len(curve.by_scene("abs_rel", ["depth"], 0)) == len(SCENES) - 1


def test_gathering_again_leaves_the_same(curves: list[Path], section: TrainDitConfig, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in curves[1].rglob("*") if path.is_file()}
    root = curves[1].parent
    write_curve(curves[1], size="2x48", section=resize(section, "2x48"), dit=root / "dit", evaluations=[root / "0", root / "2"])
    assert {path: path.read_bytes() for path in curves[1].rglob("*") if path.is_file()} == before


def test_a_folder_without_scores_is_refused_by_name(curves: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json: cannot be read"):
        read_curve(tmp_path)
    (tmp_path / "model.json").write_bytes((curves[0] / "model.json").read_bytes())
    with pytest.raises(InputError, match="holds no scores"):
        read_curve(tmp_path)


def test_models_side_by_side_leave_figures_drawings_and_words(curves: list[Path], tmp_path: Path) -> None:
    write_trends(curves, tmp_path)
    document = read_json(tmp_path / "trends.json")
    assert [model["size"] for model in document["models"]] == ["2x48", "4x192"]
    assert document["loss"]["trained"]["values"]["2x48"]["0"]["mean"] == pytest.approx(7.5, abs=0.01)
    (step,) = (step for step in document["loss"]["held_out"]["larger_model"] if step["num_pairs"] == 2)
    assert step["mean"] == pytest.approx(-1.0)
    assert document["tasks"]["denoising"]["held_out"]
    for name in ("loss", "metrics_over_pairs", "metrics_over_size", *(f"answers_{task}" for task in TASKS)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG"
    summary = (tmp_path / "summary.md").read_text()
    assert "| 2x48 | 166 k | 7.50" in summary
    assert "With more pairs it surely falls in 2 of 2 paired comparisons, and surely rises in 0" in summary
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 3 + len(TASKS)


def test_equal_curves_give_equal_bytes_in_any_order(curves: list[Path], tmp_path: Path) -> None:
    for name, order in (("one", curves), ("other", curves[::-1])):
        (tmp_path / name).mkdir()
        write_trends(order, tmp_path / name)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert first == second
    assert json.loads(first["trends.json"])["num_pairs"] == [0, 2]


def test_one_scene_has_a_mean_and_no_error() -> None:
    table = {"mean": 1.5, "error": math.nan}
    series = {"values": {"2x48": {"0": table}}, "larger_model": [], "more_pairs": []}
    document = {"loss": {"trained": series}, "num_pairs": [0], "models": [{"size": "2x48", "num_parameters": 166_000}]}
    assert "| 1.5000 |" in summary(document)
