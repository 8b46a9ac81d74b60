"""What the KFP components do when they run: the bridge from parameters and artifact paths to a step's section and folders."""

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

from components.entry import clear_errors, configure_logging, stop_when_nobody_reads, tune_process
from components.execution import execute
from components.folders import read_json
from components.recipes import params_file
from components.store import open_input, produce, publish
from lavin_dit.config import SECTIONS, load_config, parse_config, section_from_json, section_to_json


@contextmanager
def _entered() -> Iterator[None]:
    tune_process()
    configure_logging()
    # KFP makes every library's chatter heard.
    logging.getLogger().setLevel(logging.WARNING)
    stop_when_nobody_reads()
    with clear_errors():
        yield


@_entered()
def run_resolve(*, params: str, recipe: str, overrides: list[str], raw: str, plan: str) -> tuple[str, ...]:
    """Resolves a whole configuration; returns every step's section as JSON, in the order of the steps, then the data's hash."""
    config = parse_config(params, overrides, source="params") if params else load_config(params_file(None, recipe), overrides)
    execute("resolve", config, {"raw": Path(raw)}, {"plan": Path(plan)})
    sections = [section_to_json(getattr(config, step)) for step in SECTIONS]
    return (*sections, read_json(Path(plan) / "data.json")["hash"])


@_entered()
def run_prepare(*, section: str, raw: str, data_hash: str, store: str, shards: str) -> None:
    """Prepares the data set of that hash."""
    _produce("prepare", section, {"raw": Path(raw)}, store=store, output=("shards", shards), known={"raw": data_hash})


@_entered()
def run_step(step: str, *, section: str, inputs: Mapping[str, str], output: tuple[str, str], store: str, processes: int = 1) -> None:
    """A step whose inputs are artifacts and whose output is one."""
    _produce(step, section, _open(inputs), store=store, output=output, processes=processes)


@_entered()
def run_evaluate(
    *, section: str, inputs: Mapping[str, str], evaluation: str, store: str, metrics: MutableMapping[str, Any], shown: Mapping[str, str]
) -> None:
    """Evaluates, and lays out what the KFP UI shows: `metrics` by name, and `shown`, where to put a copy of each file."""
    folder = _produce("evaluate", section, _open(inputs), store=store, output=("evaluation", evaluation))
    metrics.update(flat_metrics(read_json(folder / "metrics.json")))
    for name, target in shown.items():
        copyfile(folder / name, target)


@_entered()
def run_gate(*, section: str, inputs: Mapping[str, str], registry: str, verdict: str) -> str:
    """Judges; returns `promote` or `keep`. Depends on what is in production, so it is never taken from the store."""
    execute("gate", section_from_json("gate", section), {**_open(inputs), "registry": Path(registry)}, {"verdict": Path(verdict)})
    return "promote" if read_json(Path(verdict) / "verdict.json")["passed"] else "keep"


@_entered()
def run_promote(*, section: str, inputs: Mapping[str, str], registry: str, promotion: str) -> None:
    """Registers the bundle and gives it its stage. Acts on the world, so it is never taken from the store."""
    folders = {**_open(inputs), "registry": Path(registry)}
    execute("promote", section_from_json("promote", section), folders, {"promotion": Path(promotion)})


def flat_metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """The model's metrics by `task/metric`, and how many tasks beat the baselines; what could not be measured is left out."""
    flat = {f"{task}/{name}": value for task, entry in document["tasks"].items() for name, value in entry["model"].items()}
    flat["tasks_beating_baselines"] = document["tasks_beating_baselines"]
    return {name: value for name, value in flat.items() if value is not None}


def _open(inputs: Mapping[str, str]) -> dict[str, Path]:
    return {name: open_input(Path(path)) for name, path in inputs.items()}


def _produce(
    step: str,
    section: str,
    inputs: Mapping[str, Path],
    *,
    store: str,
    output: tuple[str, str],
    known: Mapping[str, str] | None = None,
    processes: int = 1,
) -> Path:
    name, path = output
    checked = section_from_json(step, section)
    folder = produce(step, checked, inputs, output=name, store=Path(store), known=known or {}, processes=processes)
    publish(folder, Path(path), output=name)
    return folder
