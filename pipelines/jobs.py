"""`lavin jobs`: the distributed jobs on a cluster that a launcher made."""

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from components.pod_environment import NAMESPACE_VARIABLE

if TYPE_CHECKING:
    from components.launcher.api import Api
    from components.launcher.leftovers import KnownJob

DEFAULT_NAMESPACE = "lavin"
HOUR_S = 3600.0

Namespace = Annotated[str, typer.Option(envvar=NAMESPACE_VARIABLE, help="Where the jobs are.")]
Run = Annotated[str, typer.Option(metavar="ID", help="Only jobs of this run; these all, even such as still run.")]
OlderThan = Annotated[float, typer.Option(metavar="HOURS", min=0, help="Only jobs of at least this age.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only says what would be removed.")]

jobs = typer.Typer(help="Shows and removes the distributed jobs of training steps on a cluster.", no_args_is_help=True)


@jobs.command("list")
def list_command(*, namespace: Namespace = DEFAULT_NAMESPACE) -> None:
    """Shows our jobs, and which of them nobody waits for any more."""
    from components.launcher.leftovers import known_jobs

    found = known_jobs(_api(namespace))
    if not found:
        typer.echo(f"no jobs in namespace {namespace}")
        return
    table = Table("name", "kind", "run", "step", "state", "age", "leftover", box=None)
    for job in found:
        state = job.state
        leftover = "yes" if job.is_leftover else ""
        table.add_row(state.name, job.kind.kind, job.run_id, job.step, state.phase, _age(job.age_s), leftover)
    # A pipe has no width to fit into.
    Console(width=None if os.isatty(1) else 200).print(table)


@jobs.command("gc")
def gc_command(*, run: Run = "", older_than: OlderThan = 0.0, dry_run: DryRun = False, namespace: Namespace = DEFAULT_NAMESPACE) -> None:
    """Removes jobs that have ended, or whose workflow is gone."""
    from components.launcher.leftovers import known_jobs, remove_all

    api = _api(namespace)
    found = [job for job in known_jobs(api, run_id=run) if _is_due(job, run, older_than)]
    if not dry_run:
        remove_all(api, found)
    for job in found:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {job.kind.kind} {job.state.name} ({job.state.phase})")
    if not found:
        typer.echo(f"nothing to remove in namespace {namespace}")


def _is_due(job: "KnownJob", run: str, older_than: float) -> bool:
    return (bool(run) or job.is_leftover) and job.age_s >= older_than * HOUR_S


def _api(namespace: str) -> "Api":
    from components.launcher.api import Api, connect

    return Api(connect(), namespace)


def _age(seconds: float) -> str:
    for size, unit in ((24 * HOUR_S, "d"), (HOUR_S, "h"), (60.0, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
