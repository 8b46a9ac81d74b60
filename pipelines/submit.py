"""`lavin submit`: a run of the pipeline on a KFP server."""

import os
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from lavin_dit.errors import InputError
from pipelines.arguments import Parameters, Settings, read_arguments, run_name
from pipelines.connection import Connection, all_pages, connect, named
from pipelines.following import Timeout, follow
from pipelines.kfp_settings import Host, Namespace, TokenFile
from pipelines.package import Package, read_package
from pipelines.release import LATEST, PIPELINE, find_release
from pipelines.times import read_duration

EXPERIMENT_VARIABLE = "KF_PIPELINES_DEFAULT_EXPERIMENT_NAME"
SHOWN_EXPERIMENTS = 10
ARCHIVED = "ARCHIVED"

Version = Annotated[str, typer.Option(metavar="NAME", help="The uploaded version to run.")]
Experiment = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"An experiment that there is. Without it: that in {EXPERIMENT_VARIABLE}, else {PIPELINE}, made where absent."
    ),
]
ServiceAccount = Annotated[
    str | None, typer.Option(metavar="NAME", help="The service account of the steps; the server's own by default.", show_default=False)
]


def submit(
    version: Version = LATEST,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Runs what `lavin compile` wrote, without an upload.", show_default=False)
    ] = None,
    parameters: Parameters = None,
    settings: Settings = None,
    experiment: Experiment = None,
    name: Annotated[str | None, typer.Option(help="The run's name; by default it says what runs.", show_default=False)] = None,
    service_account: ServiceAccount = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Runs every step; outputs that lie finished on the volume are still used.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follows the run until it ends; the exit code tells how.")] = False,
    timeout: Timeout = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
) -> None:
    """Starts a run of an uploaded version. Parameters are checked before anything is sent."""
    if file and version != LATEST:
        raise InputError(f"--version {version}: does not go with --file {file}, which is no uploaded version")
    if timeout and not wait:
        raise InputError(f"--timeout {timeout}: goes with --wait")
    timeout_s = read_duration(timeout, "--timeout") if timeout else None
    given = (parameters or [], settings or [])
    local = read_package(file)[1] if file else None
    if local:
        read_arguments(local, *given)
    connection = connect(host, namespace, token_file)
    chosen = Choice(file.name, local, None) if file and local else choose(connection, version)
    arguments = read_arguments(chosen.package, *given)
    run = connection.runs.run_service_create_run(
        {
            "display_name": name or run_name(chosen.package, arguments, chosen.title),
            "experiment_id": find_experiment(connection, experiment),
            "runtime_config": {"parameters": arguments},
            **chosen.source(no_cache=no_cache),
            **account(service_account),
        }
    )
    typer.echo(f"run {run.run_id}: {run.display_name}")
    typer.echo(connection.link(f"runs/details/{run.run_id}"))
    if wait:
        follow(connection, run.run_id, timeout_s=timeout_s)


class Choice(NamedTuple):
    """What is to run: its name for people, what it says, and the version that it is where it was uploaded."""

    title: str
    package: Package
    release: Any

    def source(self, *, no_cache: bool = False) -> dict[str, Any]:
        """Where a run's pipeline comes from, as part of a request."""
        # A reference has no say in caching: such a run carries the version's own text along instead.
        if no_cache:
            return {"pipeline_spec": self.package.without_cache().spec()}
        if self.release is None:
            return {"pipeline_spec": self.package.spec()}
        version = {"pipeline_id": self.release.pipeline_id, "pipeline_version_id": self.release.pipeline_version_id}
        return {"pipeline_version_reference": version}


def choose(connection: Connection, version: str) -> Choice:
    """An uploaded version; see `find_release`."""
    release = find_release(connection, version)
    if not release.pipeline_spec:
        raise InputError(f"--version {release.display_name}: {connection.host} has lost what this version runs; upload it anew")
    return Choice(release.display_name, Package.from_spec(release.pipeline_spec), release)


def account(name: str | None) -> dict[str, str]:
    """The service account, as part of a request."""
    return {"service_account": name} if name else {}


def find_experiment(connection: Connection, name: str | None) -> str:
    """The experiment's identifier; the default one is made where there is none.

    Raises: InputError where there is no experiment of the name that was given, or it was archived.
    """
    wanted = name or os.environ.get(EXPERIMENT_VARIABLE) or PIPELINE
    search = connection.experiments.experiment_service_list_experiments
    found = all_pages(search, "experiments", filter=named(wanted), **connection.scope())
    if not found and name:
        others = [item.display_name for item in search(page_size=SHOWN_EXPERIMENTS, **connection.scope()).experiments or []]
        raise InputError(f"--experiment {name}: there is no such experiment; there {_list(others)}")
    if not found:
        made = connection.experiments.experiment_service_create_experiment({"display_name": wanted, **connection.scope()})
        return str(made.experiment_id)
    if found[0].storage_state == ARCHIVED:
        raise InputError(f"--experiment {wanted}: was archived; restore it in the UI, or name another")
    return str(found[0].experiment_id)


def _list(names: list[str]) -> str:
    return f"are {', '.join(names)}" if names else "are none; make it in the UI, or leave the option out"
