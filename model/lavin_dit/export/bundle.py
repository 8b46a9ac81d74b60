"""What a bundle holds beside its graphs: the modulation table, default context pairs, the facts of bundle.json, the model card."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from lavin_dit.config import SamplingConfig
from lavin_dit.data.shards.shard_set import Pair, ShardSet
from lavin_dit.data.tasks import NEAREST_KINDS, task_of
from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.export.format import BUNDLE_FORMAT, CONTEXTS_FOLDER, TABLE_FILE, context_file
from lavin_dit.export.graphs import DTYPE, OPSET, graphs_of
from lavin_dit.export.runtime import Context
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR
from lavin_dit.sampling import time_grid
from lavin_dit.weights import TrainedVae

logger = logging.getLogger(__name__)

NAME = "LaVin-DiT"
ANSWERS = ("model", "query_unchanged", "context_mean")


@dataclass(frozen=True)
class Model:
    """What is exported: the two networks, and how their answers are sampled."""

    vae: TrainedVae
    dit: JDit
    sampling: SamplingConfig


@torch.no_grad()
def write_table(folder: Path, model: Model) -> None:
    """Writes the modulations at the times of the sampling grid, which take the place of the modulation weights.

    Shapes: times `(s,)`, blocks `(s, depth, 8d)`, final `(s, d)`, for s = num_points - 1 evaluations.
    """
    times = time_grid(model.sampling.num_points)[:-1].astype(np.float32)
    table = model.dit.time_table(torch.from_numpy(times))
    np.savez(folder / TABLE_FILE, times=times, blocks=table.blocks.numpy(), final=table.final.numpy())


def pick_contexts(shards: ShardSet, *, num_pairs: int, seed: int) -> dict[str, Context]:
    """Default context pairs of every task: training pairs that the seed and their names alone decide, of different scenes where it can be.

    A bundle's graphs answer with one picture: tasks of clips, and held-out ones, which have no training pairs to show, are left out.
    Raises: InputError naming the task that has too few.
    """
    picked = {}
    for task in shards.tasks:
        pairs = shards.pairs_of(task)
        if reason := _reason_to_leave_out(pairs):
            logger.info("export: task %s is left out: %s", task, reason)
            continue
        if len(pairs) < num_pairs:
            raise InputError(f"export.sampling.num_pairs is {num_pairs}: task {task} has {len(pairs)} training pairs to show")
        picked[task] = _read_context(shards, _spread(pairs, seed)[:num_pairs])
    return picked


def _reason_to_leave_out(pairs: Sequence[Pair]) -> str | None:
    if not pairs:
        return "it is held out, so there are no training pairs to show"
    return "it is one of clips" if len(pairs[0].input) > 1 else None


def _spread(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}/{pair.key}".encode()).digest())
    first_of_scene = {pair.scene: pair for pair in reversed(ranked)}
    return sorted(ranked, key=lambda pair: first_of_scene[pair.scene] is not pair)


def _read_context(shards: ShardSet, pairs: Iterable[Pair]) -> Context:
    images = [(shards.image(pair.input[0]), shards.image(pair.target[0])) for pair in pairs]
    inputs, targets = (np.stack(part) for part in zip(*images, strict=True))
    return Context(inputs, targets)


def write_contexts(folder: Path, contexts: Mapping[str, Context]) -> None:
    """Writes one file a task with `inputs` and `targets`. Shapes: both `(n, h, w, 3)` uint8."""
    (folder / CONTEXTS_FOLDER).mkdir(exist_ok=True)
    for task, context in contexts.items():
        np.savez_compressed(folder / context_file(task), inputs=context.inputs, targets=context.targets)


def gather_facts(model: Model, tasks: Iterable[str], *, metrics: Mapping[str, Any], lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The content of bundle.json but for the parity and the list of files. `metrics` is the evaluation's metrics.json."""
    vae, sampling = model.vae, model.sampling
    statistics = {"shift": vae.statistics.shift, "scale": vae.statistics.scale}
    return {
        "format": BUNDLE_FORMAT,
        "name": NAME,
        "opset": OPSET,
        "dtype": DTYPE,
        "resolution": vae.resolution,
        "graphs": {graph.name: graph.facts for graph in graphs_of(vae, model.dit)},
        "latents": {"channels": LATENT_CHANNELS, "pixels_a_side": SPATIAL_FACTOR, **statistics},
        "sampling": {**sampling.model_dump(mode="json"), "time_grid": _listed(time_grid(sampling.num_points))},
        "tasks": {name: _task_facts(name, metrics) for name in tasks},
        "lineage": dict(lineage),
    }


def _listed(array: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in array]


def _task_facts(name: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    task = task_of(name)
    return {
        "title": task.title,
        "summary": task.summary,
        "kind": task.kind,
        "is_nearest": task.kind in NEAREST_KINDS,
        "input_is_nearest": task.input_kind in NEAREST_KINDS,
        "context": context_file(name),
        "metrics": metrics.get("tasks", {}).get(name),
    }


def list_files(folder: Path) -> list[str]:
    """The files of a folder, relative and in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def render_card(facts: Mapping[str, Any], *, num_parameters: Mapping[str, int]) -> str:
    """The model card as Markdown, from the content of bundle.json and the size of each network."""
    rows = [_score_row(task) for task in facts["tasks"].values() if task["metrics"]]
    return _template().render(facts=facts, rows=rows, millions={name: f"{count / 1e6:.3g}" for name, count in num_parameters.items()})


def _score_row(task: Mapping[str, Any]) -> dict[str, str]:
    metrics = task["metrics"]
    arrow = {"lower": "↓", "higher": "↑"}[metrics["better"]]
    values = {answer: _shown(metrics[answer].get(metrics["metric"])) for answer in ANSWERS}
    beats = "yes" if metrics["beats_baselines"] else "no"
    return {"title": task["title"], "metric": f"{metrics['metric']} {arrow}", "beats": beats, **values}


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


@cache
def _template() -> Template:
    # Markdown for people, not HTML: nothing is to be escaped.
    loader = PackageLoader("lavin_dit.export", "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    return environment.get_template("model_card.md")
