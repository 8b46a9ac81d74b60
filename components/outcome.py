"""How a run ended: a record beside it, numbers for Prometheus, and nothing left running."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from components.folders import read_json, write_json
from components.pod_environment import GATEWAY_VARIABLE, RUN_VARIABLE
from components.results import Results, find

logger = logging.getLogger(__name__)

OUTCOME_FILE = "outcome.json"
SUCCEEDED = "SUCCEEDED"
PUSH_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """What is worth knowing of a run that is over. Units: `time` in seconds since 1970."""

    run_id: str
    state: str
    error: str
    time: float
    done: dict[str, str]
    """Where each output lies, of those that were made."""
    metrics: dict[str, float]
    promoted: str
    """The version and its stage; empty where nothing was promoted."""


def record_outcome(workspace: Path, run: Path, *, state: str, error: str) -> Outcome:
    """Writes outcome.json, pushes the metrics where a gateway is set, and removes the run's leftover jobs.

    What cannot be pushed or removed is told and does not fail a run that is over.
    """
    results = find(workspace, run.name)
    outcome = Outcome(run.name, state, error, time.time(), _places(results), _metrics(results), _promoted(results))
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / OUTCOME_FILE, asdict(outcome))
    _push(outcome)
    if RUN_VARIABLE in os.environ:
        _remove_jobs(run.name)
    return outcome


def flat_metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """The model's metrics by `task/metric`, and how many tasks beat the baselines; what could not be measured is left out."""
    flat = {f"{task}/{name}": value for task, entry in document["tasks"].items() for name, value in entry["model"].items()}
    flat["tasks_beating_baselines"] = document["tasks_beating_baselines"]
    return {name: value for name, value in flat.items() if value is not None}


def _places(results: Results) -> dict[str, str]:
    folders = {field.name: getattr(results, field.name) for field in fields(results)}
    return {name: str(folder) for name, folder in folders.items() if folder}


def _metrics(results: Results) -> dict[str, float]:
    return flat_metrics(read_json(results.evaluation / "metrics.json")) if results.evaluation else {}


def _promoted(results: Results) -> str:
    if not results.promotion:
        return ""
    record = read_json(results.promotion / "promotion.json")
    return f"{record['name']}@{record['version']} is in {record['stage']}"


def _push(outcome: Outcome) -> None:
    """One group a run, so that Prometheus sees the last state of each."""
    gateway = os.environ.get(GATEWAY_VARIABLE)
    if not gateway:
        return
    registry = CollectorRegistry()
    succeeded = Gauge("lavin_run_succeeded", "1 where the run succeeded, 0 where it did not.", registry=registry)
    ended = Gauge("lavin_run_end_time_seconds", "When the run ended, in seconds since 1970.", registry=registry)
    metric = Gauge("lavin_run_metric", "A held-out metric of the run's model.", ["task", "metric"], registry=registry)
    succeeded.set(outcome.state == SUCCEEDED)
    ended.set(outcome.time)
    for name, value in outcome.metrics.items():
        task, _, kind = name.rpartition("/")
        metric.labels(task=task, metric=kind).set(value)
    try:
        push_to_gateway(gateway, job="lavin", grouping_key={"run": outcome.run_id}, registry=registry, timeout=PUSH_TIMEOUT_S)
    except OSError as error:
        logger.warning("the run's metrics could not be pushed to %s (%s)", gateway, error)


def _remove_jobs(run_id: str) -> None:
    # The Kubernetes client takes a second to import, and a local run does without it.
    from components.entry import StepFailedError
    from components.launcher.leftovers import remove_jobs_of_run
    from components.launcher.surroundings import Surroundings
    from lavin_dit.errors import InputError

    try:
        removed = remove_jobs_of_run(run_id, Surroundings.from_environment())
    except (InputError, StepFailedError) as error:
        logger.warning("leftover jobs of the run could not be removed (%s); `lavin jobs gc --run %s` does it", error, run_id)
        return
    for name in removed:
        logger.info("removed the leftover job %s", name)
