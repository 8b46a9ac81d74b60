"""Step: measures the model on held-out scenes, beside two trivial baselines and the ST-VAE's own ceiling, and writes the report."""

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.evaluation_facts import gather_configs, gather_facts
from components.folders import atomic_folder, step_key, write_json, write_text
from lavin_dit.config import EvaluateConfig
from lavin_dit.data.encodings import Picture
from lavin_dit.data.shards import Pair, ShardSet
from lavin_dit.data.tasks import TASKS, ImagePair, task_of
from lavin_dit.dit.j_dit import JDit
from lavin_dit.evaluation.metrics import Measurement, aggregate, measure, undefined
from lavin_dit.evaluation.queries import Query, draw_queries
from lavin_dit.evaluation.report import Example, Report, render
from lavin_dit.evaluation.results import (
    ANSWERS,
    CEILING,
    CONFUSION_COLUMNS,
    CONTEXT_MEAN,
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
from lavin_dit.inference import decode_images, encode_images, predict, to_model, to_pixels
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR
from lavin_dit.progress import Progress
from lavin_dit.sampling import starting_noise
from lavin_dit.training.history import read_history
from lavin_dit.training.processes import join_processes
from lavin_dit.weights import TrainedVae, load_dit, load_vae

logger = logging.getLogger(__name__)

INPUTS = ("shards", "vae", "dit")
OUTPUTS = ("evaluation",)


@dataclass(frozen=True)
class Question:
    """A query with its pictures."""

    query: Query
    context: tuple[ImagePair, ...]
    input: Picture
    truth: Picture


@dataclass(frozen=True)
class Answered:
    """A question, what each of `ANSWERS` scored on it, and the model's picture."""

    question: Question
    prediction: Picture
    is_finite: bool
    measured: dict[str, Measurement]


@dataclass(frozen=True)
class Model:
    """The two networks on their device, and how they are sampled."""

    vae: TrainedVae
    dit: JDit
    config: EvaluateConfig
    device: torch.device

    def answer(self, questions: Sequence[Question]) -> Tensor:
        """The model's pictures. Shapes: to `(b, c, h, w)`, on the CPU; each question's noise depends on its own number alone."""
        side = questions[0].input.shape[0] // SPATIAL_FACTOR
        shape = (LATENT_CHANNELS, 1, side, side)
        noise = [torch.from_numpy(starting_noise(shape, seed=self.config.seed, index=each.query.index)) for each in questions]
        return predict(
            self.vae,
            self.dit,
            context_inputs=torch.stack([_stack(pair.input for pair in each.context) for each in questions]).to(self.device),
            context_targets=torch.stack([_stack(pair.target for pair in each.context) for each in questions]).to(self.device),
            queries=_stack(each.input for each in questions).to(self.device),
            noise=torch.stack(noise).to(self.device),
            sampling=self.config.sampling,
        ).cpu()

    @torch.no_grad()
    def reconstruct(self, questions: Sequence[Question]) -> Tensor:
        """The truths, encoded and decoded. Shapes: to `(b, c, h, w)`, on the CPU."""
        truths = _stack(each.truth for each in questions).to(self.device)
        return decode_images(self.vae, encode_images(self.vae, truths)).cpu()


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
        for start in range(0, len(queries), config.batch_size):
            questions = [_ask(query, shards) for query in queries[start : start + config.batch_size]]
            answers = zip(questions, model.answer(questions), model.reconstruct(questions), strict=True)
            answered += [judge(question, prediction, reconstruction) for question, prediction, reconstruction in answers]
            progress.advance(len(questions))
    return answered


def in_reading_order(tasks: Iterable[str]) -> list[str]:
    """Our tasks in the order of `TASKS`, then the user's own by name."""
    known = {name: position for position, name in enumerate(TASKS)}
    return sorted(tasks, key=lambda name: (known.get(name, len(known)), name))


def _ask(query: Query, shards: ShardSet) -> Question:
    pair, *context = (_read(pair, shards) for pair in (query.pair, *query.context))
    return Question(query, tuple(context), pair.input, pair.target)


def _read(pair: Pair, shards: ShardSet) -> ImagePair:
    return ImagePair(shards.image(pair.input), shards.image(pair.target))


def _stack(pictures: Iterable[Picture]) -> Tensor:
    return torch.stack([to_model(picture) for picture in pictures])


def judge(question: Question, prediction: Tensor, reconstruction: Tensor) -> Answered:
    """Measures the model, the baselines and the ceiling on one question."""
    task = task_of(question.query.task)
    is_finite = bool(prediction.isfinite().all())
    pictures = {
        MODEL: to_pixels(prediction.nan_to_num()),
        QUERY_UNCHANGED: question.input,
        CONTEXT_MEAN: mean_picture([pair.target for pair in question.context]),
        CEILING: to_pixels(reconstruction),
    }
    measured = {answer: measure(task, picture, question.truth) for answer, picture in pictures.items()}
    return Answered(question, pictures[MODEL], is_finite, measured)


def mean_picture(pictures: Sequence[Picture]) -> Picture:
    """The mean of pictures, value by value; labels and masks are read from it as from any picture, by the nearest colour."""
    return np.asarray(np.rint(np.mean(pictures, axis=0)), np.uint8)


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
