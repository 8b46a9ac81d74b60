"""`lavin wait`: what happens in a run, step by step, through every outage of the server; and its outcome as an exit code."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from components.entry import INTERRUPTED, StepFailedError
from components.steps import STEPS
from lavin_dit.errors import InputError
from pipelines.connection import Connection, NotFoundError, ServerError, connect, first_line
from pipelines.kfp_settings import Host, Namespace, TokenFile
from pipelines.package import Package
from pipelines.run_tasks import CACHED, FAILED, PENDING, RUNNING, SKIPPED, SUCCEEDED, RunTasks, told_cause
from pipelines.times import read_duration, show_duration

POLL_S = 5.0
BACKOFF_S = (1.0, 60.0)
OUTAGE_S = 1800.0

CANCELED = "CANCELED"
ENDED = (SUCCEEDED, CANCELED, FAILED, SKIPPED)
CANCELING = "CANCELING"
WORDS = {PENDING: "pending", RUNNING: "running", CACHED: "cached", CANCELED: "canceled", FAILED: "failed"}

Timeout = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Stops waiting after so long, such as 90m or 12h; the run goes on.", show_default=False),
]


def wait(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `lavin submit` printed it.")],
    timeout: Timeout = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
) -> None:
    """Follows a run until it ends. Exit code 0 where it succeeded, 1 where not; Ctrl-C leaves the run running."""
    timeout_s = read_duration(timeout, "--timeout") if timeout else None
    connection = connect(host, namespace, token_file)
    typer.echo(connection.link(f"runs/details/{run}"))
    follow(connection, run, timeout_s=timeout_s)


def follow(connection: Connection, run_id: str, *, timeout_s: float | None = None) -> None:
    """Tells what the steps do, and returns when the run has succeeded.

    Raises: StepFailedError where it ended otherwise, or was not over in time; InputError where there is no such run.
    """
    deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
    watch = _Watch(connection, run_id, deadline)
    try:
        run = watch.until_end()
    except KeyboardInterrupt:
        typer.echo(f"run {run_id} goes on; `lavin wait {run_id}` follows it again, and its page in the UI has a button to terminate it")
        raise typer.Exit(INTERRUPTED) from None
    if run.state != SUCCEEDED:
        raise StepFailedError(f"run {run_id} {_ending(run, watch.failures)}; {connection.link(f'runs/details/{run_id}')}")
    duration = _duration(run.created_at, run.finished_at)
    typer.echo(f"run {run_id} succeeded{duration}")


class _Watch:
    """One run, looked at again and again."""

    def __init__(self, connection: Connection, run_id: str, deadline: float) -> None:
        self._connection, self._run_id, self._deadline = connection, run_id, deadline
        self._steps: dict[str, bool] = {}
        self._told: dict[str, str] = {}
        self._has_answered = False
        self.failures: dict[str, str] = {}

    def until_end(self) -> Any:
        """The run, ended."""
        while True:
            run = self._ask(self._connection.runs.run_service_get_run, self._run_id)
            self._steps = self._steps or self._ask(_steps, self._connection, run)
            for name, word in self._news(run):
                typer.echo(f"step {name}: {word}")
            if run.state in ENDED:
                return run
            self._sleep(POLL_S)

    def _news(self, run: Any) -> Iterator[tuple[str, str]]:
        details = (run.run_details.task_details if run.run_details else None) or []
        tasks = RunTasks(details)
        for detail in sorted(details, key=lambda detail: _seconds(detail.start_time)):
            name, state = (detail.display_name or "").replace("-", "_"), tasks.state(detail)
            word = _word(detail, state, is_cached=self._steps.get(detail.display_name, False))
            if detail.display_name not in self._steps or not word or self._told.get(name) == word:
                continue
            self._told[name] = word
            if state == FAILED:
                self.failures[name] = self._cause(detail, tasks)
                word = _with(word, self.failures[name])
            yield name, word

    def _cause(self, step: Any, tasks: RunTasks) -> str:
        """The message that the server has, else the last sentence in the log of the pod."""
        if message := _message(step.error):
            return message
        pod = tasks.failed_pod(step)
        logs = self._connection.logs(self._run_id, pod) if pod else iter(())
        return first_line(next(filter(None, map(told_cause, logs)), ""))

    def _ask(self, request: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, however long the server is away; at first it must be there."""
        lost_at, (delay, longest) = 0.0, BACKOFF_S
        while True:
            try:
                answer = request(*arguments)
            except NotFoundError:
                raise InputError(f"run {self._run_id}: {self._connection.host} has no such run") from None
            except (ServerError, InputError) as error:
                if not self._has_answered and not (isinstance(error, ServerError) and error.is_passing):
                    raise
                if not lost_at:
                    lost_at = time.monotonic()
                    typer.echo(f"{error}; trying again")
                if time.monotonic() - lost_at > OUTAGE_S:
                    raise ServerError(f"{error}, for {show_duration(OUTAGE_S)} now; `lavin wait {self._run_id}` tries again") from None
                self._sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing
                delay = min(2 * delay, longest)
            else:
                if lost_at:
                    typer.echo("the server is back")
                self._has_answered = True
                return answer

    def _sleep(self, seconds: float) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise StepFailedError(f"run {self._run_id} is not over yet and goes on; `lavin wait {self._run_id}` follows it again")
        time.sleep(min(seconds, left))


def _steps(connection: Connection, run: Any) -> dict[str, bool]:
    """The run's steps, and whether each may be cached; this project's own where its version is gone."""
    spec = run.pipeline_spec or _version_spec(connection, run.pipeline_version_reference)
    return Package.from_spec(spec).steps() if spec else {step.replace("_", "-"): True for step in STEPS}


def _version_spec(connection: Connection, reference: Any) -> Any:
    if not (reference and reference.pipeline_id and reference.pipeline_version_id):
        return None
    try:
        version = connection.pipelines.pipeline_service_get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id)
    except NotFoundError:
        return None
    return version.pipeline_spec


def _word(detail: Any, state: str, *, is_cached: bool) -> str:
    if state == SUCCEEDED:
        return f"succeeded{_duration(detail.start_time, detail.end_time)}"
    if state == SKIPPED:
        return "cached" if is_cached else "skipped"
    return WORDS.get(state, "")


def _ending(run: Any, failures: Mapping[str, str]) -> str:
    states = [status.state for status in run.state_history or []]
    # Argo calls a terminated workflow failed.
    if run.state == CANCELED or CANCELING in states:
        return "was canceled"
    where = "; ".join(_with(name, cause) for name, cause in failures.items())
    return _with(f"failed at {where}" if where else "failed", "" if any(failures.values()) else _message(run.error))


def _with(word: str, message: str) -> str:
    return f"{word}: {message}" if message else word


def _message(error: Any) -> str:
    return first_line(error.message or "") if error else ""


def _duration(start: datetime | None, end: datetime | None) -> str:
    # KFP's time of what has not happened is the beginning of 1970.
    return f" in {show_duration(_seconds(end) - _seconds(start))}" if _seconds(start) > 0 and _seconds(end) > 0 else ""


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
