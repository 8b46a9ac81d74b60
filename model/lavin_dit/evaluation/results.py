"""What an evaluation found: the model beside two trivial baselines and beside the most that its ST-VAE allows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lavin_dit.data.tasks import Task
from lavin_dit.evaluation.metrics import KIND_CLASSES, KIND_METRICS, METRICS, Measurement, Metric, is_better, primary_metric

MODEL, QUERY_UNCHANGED, CONTEXT_MEAN, CEILING = "model", "query_unchanged", "context_mean", "ceiling"
LOSS = "loss"
"""Among the metrics of a query: its flow-matching loss, which the model alone has."""
BASELINES = (QUERY_UNCHANGED, CONTEXT_MEAN)
ANSWERS = (MODEL, *BASELINES, CEILING)
ANSWER_TITLES = {
    MODEL: "Model",
    QUERY_UNCHANGED: "Query unchanged",
    CONTEXT_MEAN: "Context mean",
    CEILING: "ST-VAE ceiling",
}
SCORE_COLUMNS = ("task", "metric", MODEL, QUERY_UNCHANGED, CONTEXT_MEAN, "beats", CEILING)
CONFUSION_COLUMNS = ("truth", "prediction", "pixels")
MISSING = "n/a"


@dataclass(frozen=True)
class TaskResult:
    """How each of `ANSWERS` did on one task's queries."""

    task: Task
    num_queries: int
    measured: dict[str, Measurement]

    @property
    def primary(self) -> Metric:
        return primary_metric(self.task)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics, its own first."""
        return tuple(METRICS[name] for name in KIND_METRICS[self.task.kind])

    @property
    def beats_baselines(self) -> bool:
        return self.beats(self.primary.name)

    def value(self, answer: str, metric: str) -> float:
        return self.measured[answer].values[metric]

    def beats(self, metric: str) -> bool:
        """Whether the model is better than both baselines by a metric; not where anything is NaN."""
        return all(is_better(METRICS[metric], self.value(MODEL, metric), self.value(baseline, metric)) for baseline in BASELINES)

    def best(self, metric: str) -> frozenset[str]:
        """Which of the model and the baselines have the best value of a metric."""
        values = {answer: self.value(answer, metric) for answer in (MODEL, *BASELINES) if not math.isnan(self.value(answer, metric))}
        pick = min if METRICS[metric].better == "lower" else max
        return frozenset(answer for answer, value in values.items() if value == pick(values.values()))

    def headroom_used(self) -> float:
        """The share of the way from the better baseline (0) to the ST-VAE's ceiling (1) that the model has come; NaN without a way."""
        name, pick = self.primary.name, min if self.primary.better == "lower" else max
        start, end = pick(self.value(baseline, name) for baseline in BASELINES), self.value(CEILING, name)
        return (self.value(MODEL, name) - start) / (end - start) if is_better(self.primary, end, start) else math.nan


def num_beating(results: Sequence[TaskResult]) -> int:
    """Tasks in which the model beats both baselines."""
    return sum(result.beats_baselines for result in results)


def metrics_document(results: Sequence[TaskResult]) -> dict[str, Any]:
    """The content of metrics.json; NaN where a metric is undefined."""
    tasks = {
        result.task.name: {
            "metric": result.primary.name,
            "better": result.primary.better,
            "beats_baselines": result.beats_baselines,
            "num_queries": result.num_queries,
            **{answer: result.measured[answer].values for answer in ANSWERS},
        }
        for result in results
    }
    return {"tasks": tasks, "tasks_beating_baselines": num_beating(results), "num_tasks": len(results)}


def headline(results: Sequence[TaskResult]) -> dict[str, float]:
    """The content of headline.json: each task's own metric by `task/metric`, and how many tasks beat both baselines; flat for tables."""
    own = {f"{result.task.name}/{result.primary.name}": result.value(MODEL, result.primary.name) for result in results}
    return {"tasks_beating_baselines": num_beating(results), **own}


def score_rows(results: Sequence[TaskResult]) -> Iterator[dict[str, object]]:
    """The rows of scores.csv, one for each metric of each task, with `SCORE_COLUMNS`; an undefined value is left empty."""
    for result in results:
        for metric in result.metrics:
            values = {answer: result.value(answer, metric.name) for answer in ANSWERS}
            shown = {answer: "" if math.isnan(value) else value for answer, value in values.items()}
            yield {"task": result.task.name, "metric": metric.name, "beats": result.beats(metric.name), **shown}


def confusion_rows(result: TaskResult) -> list[dict[str, object]]:
    """The model's confusion matrix with `CONFUSION_COLUMNS`, a row for each pair of classes; none for tasks without our classes."""
    classes, counts = KIND_CLASSES.get(result.task.kind, ()), result.measured[MODEL].counts
    if counts is None or counts.shape != (len(classes), len(classes)):
        return []
    return [
        {"truth": truth, "prediction": prediction, "pixels": int(counts[row, column])}
        for row, truth in enumerate(classes)
        for column, prediction in enumerate(classes)
    ]


def show(metric: Metric, value: float) -> str:
    """A value as people read it, with its unit."""
    if math.isnan(value):
        return MISSING
    separator = "" if metric.unit in ("", "°") else "\N{NO-BREAK SPACE}"
    return f"{value:.{metric.decimals}f}{separator}{metric.unit}"


def summary(results: Sequence[TaskResult]) -> str:
    """The metric table as Markdown, for terminals and for pipeline user interfaces."""
    header = ["Task", "Metric", *(ANSWER_TITLES[answer] for answer in ANSWERS), "Beats both"]
    lines = [
        f"# The model beats both baselines on {num_beating(results)} of {len(results)} tasks",
        "",
        f"| {' | '.join(header)} |",
        f"|{'|'.join(['---', '---', *['---:'] * len(ANSWERS), ':---:'])}|",
        *(_summary_row(result) for result in results),
        "",
        "↓ less is better, ↑ more is better. The ST-VAE ceiling is the truth, encoded and decoded: no answer can be expected to pass it.",
    ]
    return "\n".join(lines) + "\n"


def _summary_row(result: TaskResult) -> str:
    metric, best = result.primary, result.best(result.primary.name)
    values = [(answer, show(metric, result.value(answer, metric.name))) for answer in ANSWERS]
    cells = [f"**{text}**" if answer in best else text for answer, text in values]
    arrow = "↓" if metric.better == "lower" else "↑"
    return f"| {' | '.join([result.task.title, f'{metric.name} {arrow}', *cells, 'yes' if result.beats_baselines else 'no'])} |"
