"""`lavin schedule`: runs of the pipeline that a KFP server starts by itself, again and again."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from components.entry import StepFailedError
from lavin_dit.errors import InputError
from pipelines.arguments import Parameters, Settings, read_arguments, shown
from pipelines.connection import Connection, all_pages, connect
from pipelines.kfp_settings import Host, Namespace, TokenFile
from pipelines.release import LATEST, PIPELINE, pipeline_id
from pipelines.submit import Experiment, ServiceAccount, Version, account, choose, find_experiment
from pipelines.times import read_cron, read_duration, show_duration

SHORTEST_S = 60


def schedule(
    cron: Annotated[
        str | None,
        typer.Option(metavar="FIELDS", help='Five fields, such as "0 2 * * *"; in the server\'s time, mostly UTC.', show_default=False),
    ] = None,
    every: Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 30m, 6h or 1d.", show_default=False)] = None,
    name: Annotated[str, typer.Option(help="The schedule's name, one of a kind.")] = PIPELINE,
    version: Version = LATEST,
    parameters: Parameters = None,
    settings: Settings = None,
    experiment: Experiment = None,
    service_account: ServiceAccount = None,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs of this schedule at the same time.")] = 1,
    catchup: Annotated[bool, typer.Option("--catchup/--no-catchup", help="Makes up for runs that were missed.")] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Starts no run until it is enabled in the UI.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Puts it in the place of the schedule of that name.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Shows the schedules of the pipeline.")] = False,
    delete: Annotated[str | None, typer.Option(metavar="NAME", help="Deletes a schedule; its runs stay.", show_default=False)] = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
) -> None:
    """Runs a version of the pipeline again and again, the one that is the latest now unless one is named."""
    chosen = {"--cron": cron, "--every": every, "--list": show, "--delete": delete is not None}
    if sum(map(bool, chosen.values())) != 1:
        raise InputError(f"schedule: takes one of {', '.join(chosen)}")
    trigger = _trigger(cron, every) if cron or every else {}
    connection = connect(host, namespace, token_file)
    if show:
        _print(_schedules(connection))
        return
    if delete is not None:
        _delete(connection, delete)
        return
    present = _of_name(_schedules(connection), name)
    if present and not replace:
        raise InputError(f"--name {name}: there is such a schedule ({_told(present[0])}); --replace puts this one in its place")
    choice = choose(connection, version)
    made = connection.recurring_runs.recurring_run_service_create_recurring_run(
        {
            "display_name": name,
            "description": f"{PIPELINE} {choice.title}",
            "experiment_id": find_experiment(connection, experiment),
            "mode": "DISABLE" if disabled else "ENABLE",
            "trigger": trigger,
            # The schema has this number as a text.
            "max_concurrency": str(max_concurrency),
            "no_catchup": not catchup,
            "runtime_config": {"parameters": read_arguments(choice.package, parameters or [], settings or [])},
            **choice.source(),
            **account(service_account),
        }
    )
    _remove(connection, present, name)
    typer.echo(f"schedule {name}{' replaced' if present else ''}: {_told(made)}")
    typer.echo(connection.link(f"recurringrun/details/{made.recurring_run_id}"))


def _trigger(cron: str | None, every: str | None) -> dict[str, Any]:
    if cron:
        return {"cron_schedule": {"cron": read_cron(cron)}}
    seconds = read_duration(every or "", "--every")
    if seconds < SHORTEST_S:
        raise InputError(f"--every {every}: must be at least {SHORTEST_S} seconds")
    return {"periodic_schedule": {"interval_second": str(seconds)}}


def _schedules(connection: Connection) -> list[Any]:
    """Those of this pipeline; the server may keep others."""
    pipeline = pipeline_id(connection)
    found = all_pages(connection.recurring_runs.recurring_run_service_list_recurring_runs, "recurring_runs", **connection.scope())
    references = [(item, item.pipeline_version_reference) for item in found]
    return [item for item, reference in references if pipeline and reference and reference.pipeline_id == pipeline]


def _of_name(schedules: list[Any], name: str) -> list[Any]:
    return [item for item in schedules if item.display_name == name]


def _delete(connection: Connection, name: str) -> None:
    schedules = _schedules(connection)
    found = _of_name(schedules, name)
    if not found:
        names = sorted({item.display_name for item in schedules})
        raise InputError(f"--delete {name}: there is no such schedule; there are {', '.join(names) or 'none'}")
    for item in found:
        connection.recurring_runs.recurring_run_service_delete_recurring_run(item.recurring_run_id)
    typer.echo(f"schedule {name} deleted")


def _remove(connection: Connection, replaced: list[Any], name: str) -> None:
    """Deletes what a new schedule replaces, which starts runs of its own until then."""
    try:
        for item in replaced:
            connection.recurring_runs.recurring_run_service_delete_recurring_run(item.recurring_run_id)
    except (InputError, StepFailedError) as error:
        raise StepFailedError(f"schedule {name}: the new one is there, but the old one too ({error}); run the same again") from None


def _print(schedules: list[Any]) -> None:
    for item in sorted(schedules, key=lambda item: str(item.display_name)):
        typer.echo(f"{item.display_name}: {_told(item)}")
    if not schedules:
        typer.echo(f"there is no schedule of {PIPELINE}")


def _told(item: Any) -> str:
    words = [
        _when(item.trigger),
        "disabled" if item.status == "DISABLED" else "enabled",
        f"at most {item.max_concurrency} at once",
        _parameters((item.runtime_config.parameters if item.runtime_config else None) or {}),
        item.description or "",
    ]
    return ", ".join(word for word in words if word)


def _when(trigger: Any) -> str:
    if trigger.cron_schedule:
        return f"cron {trigger.cron_schedule.cron}"
    return f"every {show_duration(int(trigger.periodic_schedule.interval_second))}"


def _parameters(parameters: Mapping[str, Any]) -> str:
    return shown(" ".join(f"{name}={value}" for name, value in sorted(parameters.items())))
