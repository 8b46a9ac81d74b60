"""`lavin promote`, `lavin rollback` and `lavin history`: a release manager's view of the registry."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.gate import VERDICT_FILE
from components.promote import Target, promote_bundle
from components.registry.history import Assignment, History, Version, read_history, timestamp
from components.registry.releases import METRICS_FILE, assign, read_release_file, roll_back
from components.registry.repository import is_registry
from lavin_dit.errors import InputError

DEFAULT_REGISTRY = Path("runs/demo/registry")
DEFAULT_NAME = "lavin-dit"
DEFAULT_STAGE = "production"
REGISTERED = re.compile(r"(?P<name>[^@/]+)@(?P<version>v\d+\.\d+\.\d+)")
SHORT_COMMIT = 9

Registry = Annotated[Path, typer.Option(metavar="DIR", help="The registry's folder, a git repository.")]
Stage = Annotated[str, typer.Option(help="Name of the stage.")]
Name = Annotated[str, typer.Option(help="The model's name in the registry.")]


def promote(
    target: Annotated[str, typer.Argument(metavar="BUNDLE|NAME@VERSION", help="A bundle's folder, or a version such as lavin-dit@v0.2.0.")],
    registry: Registry = DEFAULT_REGISTRY,
    stage: Stage = DEFAULT_STAGE,
    name: Name = DEFAULT_NAME,
    verdict: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The gate's verdict on the bundle; by default verdict/verdict.json beside the bundle."),
    ] = None,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promotes a bundle without a passing verdict; the reason is kept in the registry.")
    ] = None,
) -> None:
    """Puts a bundle, or a version that is registered already, in a stage.

    A bundle needs a passing verdict, and hashes that match; it is registered first where it is new. A registry is made where there is none.
    """
    if force is not None and not force.strip():
        raise InputError("--force: needs a reason, which is kept in the registry")
    bundle, registered = Path(target), REGISTERED.fullmatch(target)
    name = name if bundle.is_dir() or not registered else registered["name"]
    before = read_history(registry, name).in_stage(stage)
    if bundle.is_dir():
        evidence = verdict or bundle.absolute().parent / "verdict" / VERDICT_FILE
        if not force and not evidence.is_file():
            raise InputError(f"{evidence}: there is no verdict on {bundle}; name one with --verdict, or promote with --force REASON")
        promotion = promote_bundle(bundle, Target(registry, name, stage), verdict=evidence, forced=force)
        version, changed = promotion.version, promotion.is_new_in_stage
    elif not registered:
        raise InputError(f"{target}: must be a bundle's folder, or a registered version such as {DEFAULT_NAME}@v0.2.0")
    elif verdict:
        raise InputError(f"--verdict {verdict}: goes with a bundle's folder; {target} has been registered already")
    else:
        version = read_history(registry, name).find(registered["version"])
        changed = assign(registry, version, stage, forced=force)
    typer.echo(_promoted(version, stage, before, changed=changed))


def _promoted(version: Version, stage: str, before: Version | None, *, changed: bool) -> str:
    if not changed:
        return f"{version} is in {stage} already"
    return f"{version} is in {stage} now" + (f" (before: {before.version})" if before else "")


def rollback(
    registry: Registry = DEFAULT_REGISTRY,
    stage: Stage = DEFAULT_STAGE,
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="An earlier version of the stage, such as v0.1.0.")] = None,
    name: Name = DEFAULT_NAME,
) -> None:
    """Puts the version back that was in the stage before the present one.

    A rollback undoes a promotion: a second rollback goes one further back, and a promotion after it continues from there.
    """
    _check_exists(registry)
    present, target = roll_back(registry, name, stage, to)
    typer.echo(f"{name} in {stage}: from {present.version} back to {target.version}")


def history(
    registry: Registry = DEFAULT_REGISTRY,
    name: Name = DEFAULT_NAME,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, all metrics included, as JSON.")] = False,
) -> None:
    """Shows the versions, their stages, times, commits and metrics, and every change of a stage. Newest first."""
    _check_exists(registry)
    known = read_history(registry, name)
    if not known.versions:
        raise InputError(f"{registry}: has no version of {name}")
    metrics = {version.version: _metrics(registry, version) for version in known.versions}
    if as_json:
        typer.echo(json.dumps(_document(registry, known, metrics), indent=2))
        return
    _print_table(["version", "stage", "registered", "commit", "beat baselines", "metrics"], _version_rows(known, metrics))
    typer.echo()
    _print_table(["#", "time", "stage", "version", ""], [_assignment_row(assignment) for assignment in reversed(known.assignments)])


def _check_exists(registry: Path) -> None:
    if not is_registry(registry):
        raise InputError(f"{registry}: holds no registry; `lavin promote` makes one")


def _metrics(registry: Path, version: Version) -> Any:
    text = read_release_file(registry, version, METRICS_FILE)
    return json.loads(text) if text else None


def _version_rows(known: History, metrics: dict[str, Any]) -> list[list[str]]:
    rows = []
    for version in reversed(known.versions):
        stages = ", ".join(known.stages_of(version))
        of_version = metrics[version.version] or {}
        beat = f"{of_version.get('tasks_beating_baselines', '-')} of {of_version.get('num_tasks', '-')}" if of_version else "-"
        told = _main_metrics(of_version) + (f" (forced: {version.forced})" if version.forced else "")
        rows.append([version.version, stages, timestamp(version.time), version.commit[:SHORT_COMMIT], beat, told.strip()])
    return rows


def _main_metrics(metrics: dict[str, Any]) -> str:
    """Each task's own metric."""
    values = [(task, entry["metric"], entry["model"].get(entry["metric"])) for task, entry in metrics.get("tasks", {}).items()]
    return ", ".join(f"{task} {metric} {'-' if value is None else f'{value:.4g}'}" for task, metric, value in values)


def _assignment_row(assignment: Assignment) -> list[str]:
    notes = {"rolled back from": assignment.rolled_back_from, "forced:": assignment.forced}
    note = ", ".join(f"{words} {value}" for words, value in notes.items() if value)
    return [str(assignment.number), timestamp(assignment.time), assignment.stage, assignment.version or "none", note]


def _document(registry: Path, known: History, metrics: dict[str, Any]) -> dict[str, Any]:
    versions = [
        asdict(version) | {"time": timestamp(version.time), "stages": known.stages_of(version), "metrics": metrics[version.version]}
        for version in known.versions
    ]
    assignments = [asdict(assignment) | {"time": timestamp(assignment.time)} for assignment in known.assignments]
    return {"registry": str(registry.resolve()), "name": known.name, "versions": versions, "assignments": assignments}


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table on a terminal, lines with aligned columns that nothing wraps or shortens elsewhere."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
        for cells in [columns, *rows]:
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in ("metrics", ""))
    for row in rows:
        table.add_row(*row)
    console.print(table)
