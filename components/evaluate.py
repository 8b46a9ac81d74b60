"""Step: measures the model on held-out scenes, beside two trivial baselines and the ST-VAE's own ceiling, and writes the report."""

import csv
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from components.evaluation_facts import gather_configs, gather_facts
from components.folders import atomic_folder, step_key, write_json, write_text
from lavin_dit.config import EvaluateConfig
from lavin_dit.data.pixels import Pixels
from lavin_dit.data.shards.picture_files import encode_png
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.data.tasks import TASKS, task_of
from lavin_dit.evaluation.answers import Model, Question, ask, in_batches
from lavin_dit.evaluation.metrics import Measurement, aggregate, measure, undefined
from lavin_dit.evaluation.queries import draw_queries
from lavin_dit.evaluation.report import Example, Report, render
from lavin_dit.evaluation.results import (
    ANSWERS,
    CEILING,
    CONFUSION_COLUMNS,
    CONTEXT_MEAN,
    LOSS,
    MODEL,
    QUERY_UNCHANGED,
    SCORE_COLUMNS,
    TaskResult,
    confusion_rows,
    headline,
    metrics_document,
    num_beating,
    score_rows,
    summary,
)
from lavin_dit.inference import to_pixels
from lavin_dit.progress import Progress
from lavin_dit.training.history import read_history
from lavin_dit.training.processes import join_processes
from lavin_dit.weights import load_dit, load_vae

logger = logging.getLogger(__name__)

INPUTS = ("shards", "vae", "dit")
OUTPUTS = ("evaluation",)

QUERIES_FILE, LOSSES_FILE, EXAMPLES = "queries.csv", "losses.json", "examples"
QUERY_COLUMNS = ("task", "scene", "key", "metric", *ANSWERS)
"""Of queries.csv: a row for every metric of every query, and one for its flow-matching loss."""


@dataclass(frozen=True)
class Answered:
    """A question, what each of `ANSWERS` scored on it, the model's picture, and its flow-matching loss."""

    question: Question
    prediction: Pixels
    loss: float
    is_finite: bool
    measured: dict[str, Measurement]


def run(config: EvaluateConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Evaluates every task of the test split. Two runs with the same parameters and inputs write equal metrics."""
    with (
        join_processes() as processes,
        ShardSet(inputs["shards"], "test") as shards,
        atomic_folder(outputs["evaluation"], key=step_key(config, inputs)) as folder,
    ):
        vae, dit = load_vae(inputs["vae"]), load_dit(inputs["dit"])
        vae.module.to(processes.device)
        answered = answer_all(Model(vae, dit.to(processes.device), config, processes.device), shards)
        results = gather_results(answered)
        report = Report(
            results=results,
            num_pairs=config.sampling.num_pairs,
            examples=pick_examples(answered, config.examples_per_task),
            histories={"ST-VAE": read_history(inputs["vae"] / "history.csv"), "J-DiT": read_history(inputs["dit"] / "history.csv")},
            reconstructions=[path.read_bytes() for path in sorted((inputs["vae"] / "reconstructions").glob("*.png"))],
            facts=gather_facts(config, inputs, shards, vae, dit),
            configs=gather_configs(config, inputs),
        )
        write(folder, config, results, render(report))
        _write_rows(folder / QUERIES_FILE, QUERY_COLUMNS, query_rows(answered))
        write_json(folder / LOSSES_FILE, mean_losses(answered), nan_as_null=True)
        write_examples(folder / EXAMPLES, report.examples)
        logger.info("the model beats both baselines on %d of %d tasks", num_beating(results), len(results))


def answer_all(model: Model, shards: ShardSet) -> list[Answered]:
    """Asks every query of the evaluation, in batches."""
    config = model.config
    queries = draw_queries(
        {task: shards.pairs_of(task) for task in in_reading_order(shards.tasks)},
        queries_per_task=config.queries_per_task,
        num_pairs=config.sampling.num_pairs,
        seed=config.seed,
    )
    answered: list[Answered] = []
    with Progress("evaluate", len(queries)) as progress:
        for batch in in_batches(queries, config.batch_size):
            questions = [ask(query, shards) for query in batch]
            answers = model.answer(questions)
            rows = zip(questions, answers.predictions, answers.reconstructions, answers.losses.tolist(), strict=True)
            answered += [judge(*row) for row in rows]
            progress.advance(len(questions))
    return answered


def in_reading_order(tasks: Iterable[str]) -> list[str]:
    """Our tasks in the order of `TASKS`, then the user's own by name."""
    known = {name: position for position, name in enumerate(TASKS)}
    return sorted(tasks, key=lambda name: (known.get(name, len(known)), name))


def judge(question: Question, prediction: Tensor, reconstruction: Tensor, loss: float) -> Answered:
    """Measures the model, the baselines and the ceiling on one question; without context there is no mean of it to measure.

    Shapes: prediction and reconstruction `(c, t, h, w)`, t = 1 for pictures.
    """
    task = task_of(question.query.task)
    is_finite = bool(prediction.isfinite().all())
    answer, ceiling = (to_pixels(values).reshape(question.truth.shape) for values in (prediction.nan_to_num(), reconstruction))
    pictures = {MODEL: answer, QUERY_UNCHANGED: question.input, CEILING: ceiling}
    if question.context:
        pictures[CONTEXT_MEAN] = mean_pixels([pair.target for pair in question.context])
    nothing = {CONTEXT_MEAN: Measurement(undefined(task.kind))}
    measured = nothing | {answer: measure(task, picture, question.truth) for answer, picture in pictures.items()}
    return Answered(question, pictures[MODEL], loss, is_finite, measured)


def mean_pixels(pixels: Sequence[Pixels]) -> Pixels:
    """The mean of pictures or clips, value by value; labels and masks are read from it as from any picture, by the nearest colour."""
    return np.asarray(np.rint(np.mean(pixels, axis=0)), np.uint8)


def gather_results(answered: Sequence[Answered]) -> list[TaskResult]:
    """One result a task, in the order of the queries."""
    by_task: dict[str, list[Answered]] = {}
    for each in answered:
        by_task.setdefault(each.question.query.task, []).append(each)
    return [_result(name, group) for name, group in by_task.items()]


def _result(name: str, answered: Sequence[Answered]) -> TaskResult:
    task = task_of(name)
    measured = {answer: aggregate(task, [each.measured[answer] for each in answered]) for answer in ANSWERS}
    num_broken = sum(not each.is_finite for each in answered)
    if num_broken:
        logger.warning("%s: %d of %d predictions hold NaN or infinite values, so its metrics are NaN", name, num_broken, len(answered))
        measured[MODEL] = Measurement(undefined(task.kind))
    return TaskResult(task, len(answered), measured)


def pick_examples(answered: Sequence[Answered], count: int) -> dict[str, list[Example]]:
    """The first queries of every task, as the report shows them."""
    examples: dict[str, list[Example]] = {}
    for each in answered:
        shown = examples.setdefault(each.question.query.task, [])
        if len(shown) < count:
            shown.append(Example(each.question.context, each.question.input, each.prediction, each.question.truth))
    return examples


def mean_losses(answered: Iterable[Answered]) -> dict[str, float]:
    """The content of losses.json: the flow-matching loss of each task's held-out queries by `task/loss`, and the mean of the tasks."""
    losses: dict[str, list[float]] = {}
    for one in answered:
        losses.setdefault(f"{one.question.query.task}/{LOSS}", []).append(one.loss)
    means = {name: float(np.mean(values)) for name, values in losses.items()}
    return {"held_out_loss": float(np.mean(list(means.values()))), **means}


def query_rows(answered: Iterable[Answered]) -> Iterator[dict[str, object]]:
    """The rows of queries.csv; an undefined value is left empty."""
    for each in answered:
        query = each.question.query
        names = {"task": query.task, "scene": query.pair.scene, "key": query.pair.key}
        yield {**names, "metric": LOSS, MODEL: _shown(each.loss)}
        for metric in each.measured[MODEL].values:
            values = {answer: _shown(each.measured[answer].values[metric]) for answer in ANSWERS}
            yield {**names, "metric": metric, **values, **({} if each.is_finite else {MODEL: ""})}


def _shown(value: float) -> object:
    return value if math.isfinite(value) else ""


def write_examples(folder: Path, examples: Mapping[str, Sequence[Example]]) -> None:
    """A picture a task, in which every row is a query, the model's answer, and the truth; of clips, every frame has a row."""
    folder.mkdir(exist_ok=True)
    for task, shown in examples.items():
        if shown:
            rows = [np.concatenate([example.query, example.prediction, example.truth], axis=-2) for example in shown]
            rows = [row.reshape(-1, *row.shape[-2:]) for row in rows]
            (folder / f"{task}.png").write_bytes(encode_png(np.concatenate(rows)))


def write(folder: Path, config: EvaluateConfig, results: Sequence[TaskResult], report: str) -> None:
    """Writes all files of the evaluation; a value that could not be measured is null in JSON and empty in CSV."""
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "metrics.json", metrics_document(results), nan_as_null=True)
    write_json(folder / "headline.json", headline(results), nan_as_null=True)
    _write_rows(folder / "scores.csv", SCORE_COLUMNS, score_rows(results))
    for result in results:
        if rows := confusion_rows(result):
            _write_rows(folder / f"confusion_{result.task.name}.csv", CONFUSION_COLUMNS, rows)
    write_text(folder / "summary.md", summary(results))
    write_text(folder / "report.html", report)


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
