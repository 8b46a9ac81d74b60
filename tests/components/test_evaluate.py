import csv
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components import evaluate, prepare
from components.folders import read_json, write_json
from lavin_dit.config import EvaluateConfig, PrepareConfig, SamplingConfig
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.data.tasks import TASKS, ImagePair, task_of
from lavin_dit.data.world.scenes import render_scene
from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.evaluation.answers import Model, Question, ask
from lavin_dit.evaluation.metrics import KIND_METRICS, PSNR_CAP_DB, aggregate, measure
from lavin_dit.evaluation.queries import Query, draw_queries
from lavin_dit.evaluation.results import ANSWERS, CEILING, CONTEXT_MEAN, MODEL, QUERY_UNCHANGED
from lavin_dit.inference import to_model
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import LatentStatistics, TrainedVae, save_dit, save_vae

NUM_TEST_SCENES = 4
CONFIG = EvaluateConfig(
    seed=0,
    queries_per_task=3,
    batch_size=8,
    examples_per_task=1,
    sampling=SamplingConfig(num_points=3, guidance_scale=1.5, num_pairs=2),
)
OWN = "own-task"
ALL_TASKS = [*TASKS, OWN]


def shake(module: torch.nn.Module) -> None:
    """Weights without meaning that leave no branch at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    for index, split in enumerate(["train", *["test"] * NUM_TEST_SCENES]):
        own = root / "raw" / OWN / split
        own.mkdir(parents=True, exist_ok=True)
        picture = render_scene(9, index, 24).rgb
        Image.fromarray(picture).save(own / f"{index}_input.png")
        Image.fromarray(255 - picture).save(own / f"{index}_target.png")
    section = PrepareConfig(
        seed=0,
        resolution=16,
        clip_frames=5,
        tasks=tuple(TASKS),
        held_out_tasks=(),
        sources=(),
        difficulty=0.0,
        num_train_scenes=1,
        num_test_scenes=NUM_TEST_SCENES,
        num_train_clips=1,
        num_test_clips=NUM_TEST_SCENES,
        test_fraction=0.25,
        shard_mib=1.0,
        max_megapixels=1.0,
        photo_format="png",
        on_bad="stop",
    )
    prepare.run(section, {"raw": root / "raw"}, {"shards": root / "shards"})
    (root / "vae").mkdir()
    (root / "dit").mkdir()
    vae, dit = STVae(VAE_PRESETS["tiny"]), JDit(DIT_PRESETS["tiny"])
    vae.initialise(torch.Generator().manual_seed(0))
    dit.initialise(torch.Generator().manual_seed(0))
    shake(dit)
    save_vae(root / "vae", TrainedVae(vae, LatentStatistics(0.0, 1.0), 16))
    save_dit(root / "dit", dit)
    (root / "vae" / "history.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
    write_json(root / "vae" / "config.json", {"steps": 2})
    return {name: root / name for name in evaluate.INPUTS}


@pytest.fixture(scope="module")
def evaluation(inputs: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "evaluation"
    evaluate.run(CONFIG, inputs, {"evaluation": folder})
    return folder


def queries_of(shards: ShardSet) -> list[Query]:
    pairs = {task: shards.pairs_of(task) for task in ALL_TASKS}
    return draw_queries(pairs, queries_per_task=CONFIG.queries_per_task, num_pairs=CONFIG.sampling.num_pairs, seed=CONFIG.seed)


def metrics_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return document


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_the_metrics_hold_every_task_measured_four_ways(evaluation: Path) -> None:
    document = metrics_of(evaluation)
    assert set(document["tasks"]) == set(ALL_TASKS)
    assert document["num_tasks"] == len(ALL_TASKS)
    assert document["tasks_beating_baselines"] == sum(task["beats_baselines"] for task in document["tasks"].values())
    for name, measured in document["tasks"].items():
        names = KIND_METRICS[task_of(name).kind]
        assert measured["metric"] == names[0]
        assert measured["num_queries"] == CONFIG.queries_per_task
        assert all(set(measured[answer]) == set(names) for answer in ANSWERS)


def test_the_query_unchanged_scores_what_the_pictures_themselves_score(evaluation: Path, inputs: Mapping[str, Path]) -> None:
    with ShardSet(inputs["shards"], "test") as shards:
        queries = queries_of(shards)
        for name in ("depth", "semantic", OWN):
            pairs = [query.pair for query in queries if query.task == name]
            measured = [measure(task_of(name), shards.image(pair.input[0]), shards.image(pair.target[0])) for pair in pairs]
            expected = aggregate(task_of(name), measured).values
            assert metrics_of(evaluation)["tasks"][name][QUERY_UNCHANGED] == pytest.approx(expected)


def test_two_runs_write_the_same_bytes_and_leave_the_inputs_alone(evaluation: Path, inputs: Mapping[str, Path], tmp_path: Path) -> None:
    before = {name: hashes(folder) for name, folder in inputs.items()}
    evaluate.run(CONFIG, inputs, {"evaluation": tmp_path / "again"})
    assert hashes(tmp_path / "again") == hashes(evaluation)
    assert {name: hashes(folder) for name, folder in inputs.items()} == before


def test_answers_do_not_depend_on_the_batch(evaluation: Path, inputs: Mapping[str, Path], tmp_path: Path) -> None:
    evaluate.run(CONFIG.model_copy(update={"batch_size": 5}), inputs, {"evaluation": tmp_path / "fives"})
    for task, measured in metrics_of(tmp_path / "fives")["tasks"].items():
        assert measured[MODEL] == pytest.approx(metrics_of(evaluation)["tasks"][task][MODEL], abs=1e-2)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "queries.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_losses_of_tasks_are_the_means_of_their_queries(evaluation: Path) -> None:
    losses = read_json(evaluation / "losses.json")
    rows = [row for row in rows_of(evaluation) if row["metric"] == "loss"]
    for task in {row["task"] for row in rows}:
        assert losses[f"{task}/loss"] == pytest.approx(np.mean([float(row["model"]) for row in rows if row["task"] == task]))
    assert losses.pop("held_out_loss") == pytest.approx(np.mean(list(losses.values())))


def without_context(inputs: Mapping[str, Path], folder: Path) -> Path:
    sampling = CONFIG.sampling.model_copy(update={"num_pairs": 0})
    evaluate.run(CONFIG.model_copy(update={"sampling": sampling}), inputs, {"evaluation": folder})
    return folder


def test_without_pairs_the_same_queries_are_asked_and_no_context_is_measured(
    evaluation: Path, inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    alone = without_context(inputs, tmp_path / "alone")
    asked = [(row["task"], row["scene"], row["key"], row["metric"]) for row in rows_of(alone)]
    assert asked == [(row["task"], row["scene"], row["key"], row["metric"]) for row in rows_of(evaluation)]
    for task, measured in metrics_of(alone)["tasks"].items():
        assert set(measured[CONTEXT_MEAN].values()) == {None}
        assert measured[MODEL] != metrics_of(evaluation)["tasks"][task][MODEL]
        assert measured[QUERY_UNCHANGED] == metrics_of(evaluation)["tasks"][task][QUERY_UNCHANGED]
    assert metrics_of(alone)["tasks_beating_baselines"] == 0


def test_the_rows_of_the_queries_average_to_the_tasks_metrics(evaluation: Path) -> None:
    for task, metric in (("depth", "abs_rel"), ("denoising", "psnr"), (OWN, "ssim")):
        rows = [row for row in rows_of(evaluation) if (row["task"], row["metric"]) == (task, metric)]
        assert len(rows) == CONFIG.queries_per_task
        for answer in ANSWERS:
            mean = sum(float(row[answer]) for row in rows) / len(rows)
            assert mean == pytest.approx(metrics_of(evaluation)["tasks"][task][answer][metric])


def test_the_loss_of_a_query_depends_on_the_model_alone_and_not_on_how_it_is_sampled(
    evaluation: Path, inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    sampling = CONFIG.sampling.model_copy(update={"num_points": 5, "guidance_scale": 1.0})
    evaluate.run(CONFIG.model_copy(update={"sampling": sampling, "batch_size": 5}), inputs, {"evaluation": tmp_path / "other"})
    losses, others = ([float(row[MODEL]) for row in rows_of(each) if row["metric"] == "loss"] for each in (evaluation, tmp_path / "other"))
    assert losses == pytest.approx(others, rel=1e-4)
    assert len(set(losses)) == len(losses) == CONFIG.queries_per_task * len(ALL_TASKS)


def test_a_picture_a_task_shows_query_answer_and_truth(evaluation: Path, inputs: Mapping[str, Path]) -> None:
    assert {path.stem for path in (evaluation / "examples").glob("*.png")} == set(ALL_TASKS)
    with ShardSet(inputs["shards"], "test") as shards:
        first = ask(next(query for query in queries_of(shards) if query.task == "edges"), shards)
    with Image.open(evaluation / "examples" / "edges.png") as picture:
        shown = np.asarray(picture)
    assert shown.shape == (16, 48, 3)
    assert (shown[:, :16] == first.input).all()
    assert (shown[:, 32:] == first.truth).all()


def test_another_seed_asks_with_other_noise(evaluation: Path, inputs: Mapping[str, Path], tmp_path: Path) -> None:
    evaluate.run(CONFIG.model_copy(update={"seed": 1}), inputs, {"evaluation": tmp_path / "other"})
    assert metrics_of(tmp_path / "other")["tasks"]["denoising"][MODEL] != metrics_of(evaluation)["tasks"]["denoising"][MODEL]


def test_only_held_out_scenes_are_asked_about_and_shown(inputs: Mapping[str, Path]) -> None:
    with ShardSet(inputs["shards"], "test") as shards, ShardSet(inputs["shards"], "train") as train:
        trained = {pair.scene for pair in train.pairs}
        vae, dit = evaluate.load_vae(inputs["vae"]), evaluate.load_dit(inputs["dit"])
        queries = [each.question.query for each in evaluate.answer_all(Model(vae, dit, CONFIG, torch.device("cpu")), shards)]
    assert len(queries) == CONFIG.queries_per_task * len(ALL_TASKS)
    assert trained
    assert not trained & {pair.scene for query in queries for pair in (query.pair, *query.context)}
    assert all(query.pair.scene not in {pair.scene for pair in query.context} for query in queries)


def test_a_model_that_answers_the_truth_scores_perfectly_and_beats_the_baselines(inputs: Mapping[str, Path]) -> None:
    with ShardSet(inputs["shards"], "test") as shards:
        questions = [ask(query, shards) for query in queries_of(shards)]
    answered = [evaluate.judge(question, to_model(question.truth[None]), to_model(question.truth[None]), 0.0) for question in questions]
    results = evaluate.gather_results(answered)
    assert all(result.beats_baselines for result in results)
    restored = [result for result in results if result.task.kind == "image"]
    assert {OWN, "inpainting", "depth_to_image", "frame_prediction"} < {result.task.name for result in restored}
    assert {result.value(MODEL, "psnr") for result in restored} == {PSNR_CAP_DB}


def test_the_context_mean_is_the_mean_of_the_targets() -> None:
    dark, light = (np.full((2, 2, 3), value, np.uint8) for value in (10, 21))
    assert evaluate.mean_pixels([dark, light]).tolist() == np.full((2, 2, 3), 16).tolist()
    query = Query("denoising", None, (), 0)  # type: ignore[arg-type]
    pictures = [np.full((16, 16, 3), value, np.uint8) for value in (0, 100, 200)]
    context = tuple(ImagePair(pictures[0], target) for target in pictures[::2])
    question = Question(query, context, input=pictures[0], truth=pictures[1])
    answered = evaluate.judge(question, to_model(pictures[0][None]), to_model(pictures[0][None]), 0.0)
    assert answered.measured[CONTEXT_MEAN].values["mse"] == 0.0
    assert answered.measured[CEILING].values["mse"] > 0.1


def test_predictions_that_are_not_finite_give_null_and_beat_nothing(
    inputs: Mapping[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dit = evaluate.load_dit(inputs["dit"])
    dit.final_layer.linear.bias.fill_(float("nan"))
    (tmp_path / "dit").mkdir()
    save_dit(tmp_path / "dit", dit)
    with caplog.at_level(logging.WARNING):
        evaluate.run(CONFIG, {**inputs, "dit": tmp_path / "dit"}, {"evaluation": tmp_path / "evaluation"})
    document = metrics_of(tmp_path / "evaluation")
    assert document["tasks_beating_baselines"] == 0
    assert document["tasks"]["depth"][MODEL] == {"abs_rel": None, "delta1": None, "rmse": None}
    assert document["tasks"]["depth"][QUERY_UNCHANGED]["abs_rel"] > 0
    assert "n/a" in (tmp_path / "evaluation" / "report.html").read_text()
    assert "depth: 3 of 3 predictions hold NaN" in caplog.text


def test_too_few_held_out_scenes_are_refused_and_leave_nothing(inputs: Mapping[str, Path], tmp_path: Path) -> None:
    sampling = CONFIG.sampling.model_copy(update={"num_pairs": NUM_TEST_SCENES})
    with pytest.raises(InputError, match=f"task depth has {NUM_TEST_SCENES} held-out pairs in {NUM_TEST_SCENES} scenes"):
        evaluate.run(CONFIG.model_copy(update={"sampling": sampling}), inputs, {"evaluation": tmp_path / "evaluation"})
    assert not (tmp_path / "evaluation").exists()


def test_folders_without_weights_are_refused_by_name(inputs: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        evaluate.run(CONFIG, {**inputs, "dit": tmp_path / "empty"}, {"evaluation": tmp_path / "evaluation"})
    assert not (tmp_path / "evaluation").exists()


def test_the_tables_beside_the_metrics_say_the_same(evaluation: Path) -> None:
    document = metrics_of(evaluation)
    with (evaluation / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(measured[MODEL]) for measured in document["tasks"].values())
    for row in rows:
        measured = document["tasks"][row["task"]]
        for answer in ANSWERS:
            value = measured[answer][row["metric"]]
            assert row[answer] == ("" if value is None else repr(value))
    assert f"on {document['tasks_beating_baselines']} of {document['num_tasks']} tasks" in (evaluation / "summary.md").read_text()


def test_confusion_is_written_for_tasks_with_classes_and_counts_every_pixel(evaluation: Path) -> None:
    assert {path.name for path in evaluation.glob("confusion_*.csv")} == {"confusion_semantic.csv", "confusion_foreground.csv"}
    with (evaluation / "confusion_semantic.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"truth", "prediction", "pixels"}
    assert sum(int(row["pixels"]) for row in rows) == CONFIG.queries_per_task * 16 * 16


def test_the_report_tells_where_everything_came_from(evaluation: Path, inputs: Mapping[str, Path]) -> None:
    text = (evaluation / "report.html").read_text()
    assert hashlib.sha256((inputs["shards"] / "manifest.json").read_bytes()).hexdigest() in text
    assert hashlib.sha256((inputs["dit"] / "weights.safetensors").read_bytes()).hexdigest() in text
    assert "Parameters of train_vae" in text
    assert torch.__version__ in text
    assert json.loads((evaluation / "config.json").read_text()) == CONFIG.model_dump(mode="json")
