"""What a local run ends with: the metric table, where everything lies, and what to try next."""

import os
import shutil
import sys
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from components.folders import read_json
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.export.format import FACTS_FILE
from pipelines.local import Outcome, RunFolder
from pipelines.times import show_duration

DIRECTIONS = {"lower": "↓", "higher": "↑"}


def print_summary(outcome: Outcome, folder: RunFolder) -> bool:
    """Prints it; says whether the gate let the bundle pass."""
    console = Console(highlight=False, soft_wrap=True)
    metrics = read_json(outcome.evaluation / "metrics.json")
    verdict = read_json(outcome.verdict / "verdict.json")
    console.print()
    console.print(metric_table(metrics))
    console.print(
        f"{metrics['tasks_beating_baselines']} of {metrics['num_tasks']} tasks beat both baselines on held-out scenes", style="bold"
    )
    console.print()
    passed = bool(verdict["passed"])
    lines = {
        "report": str(folder.path / "report.html"),
        "bundle": str(folder.path / "bundle"),
        "gate": "passed" if passed else "; ".join(refusals(verdict)),
        **({"promoted": promotion_line(folder)} if passed else {}),
        "took": show_duration(outcome.seconds),
    }
    for name, value in lines.items():
        console.print(f"{name:>9}  {value}", markup=False)
    console.print("\nTry next:")
    for command in next_commands(outcome, folder, metrics):
        console.print(f"  {command}", markup=False)
    return passed


def metric_table(metrics: Mapping[str, Any]) -> Table:
    """Every task's own metric: the model against the two baselines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "metric"):
        table.add_column(column)
    for column in ("model", "query unchanged", "mean of context"):
        table.add_column(column, justify="right")
    table.add_column("")
    for task, entry in metrics["tasks"].items():
        values = [_shown(entry[who].get(entry["metric"])) for who in ("model", "query_unchanged", "context_mean")]
        mark = "[green]✓[/green]" if entry["beats_baselines"] else ""
        table.add_row(task, f"{entry['metric']} {DIRECTIONS[entry['better']]}", *values, mark)
    return table


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def refusals(verdict: Mapping[str, Any]) -> list[str]:
    """Why the gate refused."""
    return [f"refused, {check['name']} {check['reason']}" for check in verdict["checks"] if not check["passed"]]


def promotion_line(folder: RunFolder) -> str:
    """Which version got which stage in this run, or had it already."""
    promotion: Mapping[str, Any] = read_json(folder.promotion / "promotion.json")
    already = "" if promotion["changed"] else " (as before)"
    return f"{promotion['name']} {promotion['version']} is in {promotion['stage']}{already}"


def next_commands(outcome: Outcome, folder: RunFolder, metrics: Mapping[str, Any]) -> list[str]:
    """Three commands that work as they stand, one of them on a held-out picture."""
    task = first_winner(metrics, read_json(folder.bundle / FACTS_FILE)["tasks"])
    query, answer = folder.path / "query.png", folder.path / "answer.png"
    with closing(ShardSet(outcome.shards, "test")) as shards:
        Image.fromarray(shards.image(shards.pairs_of(task)[0].input[0])).save(query)
    lavin = program("lavin")
    return [
        f"{program('python')} -m webbrowser {folder.path / 'report.html'}",
        f"{lavin} predict {folder.bundle} --task {task} --query {query} --out {answer}",
        f"{lavin} history --registry {folder.registry}",
    ]


def program(name: str) -> str:
    """How a person starts a program of this environment from here: by its name alone where the environment is active."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    return name if found and Path(found) == own else os.path.relpath(own)


def first_winner(metrics: Mapping[str, Any], exported: Collection[str]) -> str:
    """A task of the bundle where the model beats the baselines, or its first where there is none."""
    tasks: dict[str, Any] = {task: entry for task, entry in metrics["tasks"].items() if task in exported}
    winners = (task for task, entry in tasks.items() if entry["beats_baselines"])
    return next(winners, next(iter(tasks)))
