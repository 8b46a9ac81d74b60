"""Runs the pipeline on this machine: the same DAG, in-process, each step a child process. No cluster, no container."""

import logging
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from components.entry import StepFailedError, raise_cause
from components.folders import exclusive
from components.results import find
from components.run_request import AS_IN_RECIPE, LOCAL_RUN, run_folder
from lavin_dit.progress import INTERVAL_VARIABLE
from pipelines.relay import INDENT, Relay

BAR_INTERVAL_S = "0.5"
CACHE_HIT = "cache hit"


@dataclass(frozen=True)
class RunFolder:
    """Where a local run keeps what it makes."""

    path: Path

    @property
    def store(self) -> Path:
        """Finished and half-finished outputs, by content; they outlive a killed run."""
        return self.path / "store"

    @property
    def registry(self) -> Path:
        """The scratch repository that records versions and stages."""
        return self.path / "registry"

    @property
    def promotion(self) -> Path:
        """What the last run promoted."""
        return run_folder(self.path) / "promotion"

    @property
    def kfp(self) -> Path:
        """KFP's own artifacts, one folder a run."""
        return self.path / "kfp"

    @property
    def bundle(self) -> Path:
        """The last run's bundle, as a link."""
        return self.path / "bundle"

    @property
    def log(self) -> Path:
        """Everything that KFP and the steps said."""
        return self.path / "kfp.log"


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves."""

    shards: Path
    evaluation: Path
    bundle: Path
    verdict: Path
    seconds: float


def run_locally(params: str, overrides: list[str], *, folder: RunFolder, raw: Path, processes: int) -> Outcome:
    """Runs the whole pipeline from the text of a params file; where a run was killed, it continues.

    Raises: InputError or StepFailedError with the sentence of the step that failed.
    """
    started = time.monotonic()
    folder.path.mkdir(parents=True, exist_ok=True)
    arguments = {
        "params": params,
        "overrides": overrides,
        "raw": str(raw.resolve()),
        "workspace": str(folder.path.resolve()),
        "launcher": "local",
        "processes_per_node": processes,
        "stage": AS_IN_RECIPE,
    }
    execute("lavin", arguments, folder)
    results = find(folder.path, LOCAL_RUN)
    paths = {name: _made(getattr(results, name)) for name in ("shards", "evaluation", "bundle", "verdict")}
    _show_results(folder, paths)
    return Outcome(**paths, seconds=time.monotonic() - started)


def _made(folder: Path | None) -> Path:
    assert folder, "a run that succeeded left everything in its store"
    return folder


def execute(pipeline: str, arguments: Mapping[str, Any], folder: RunFolder) -> None:
    """Runs a pipeline of `pipelines.compile.PIPELINES` in this process, each step a child process; one run at a time in a folder.

    Raises: InputError or StepFailedError with the sentence of the step that failed.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    if sys.stdout.isatty():
        os.environ.setdefault(INTERVAL_VARIABLE, BAR_INTERVAL_S)
    relay = Relay(folder.log)
    with exclusive(folder.path), relay, _ends_on_sigterm(), _quiet(relay):
        run = _load_pipeline(pipeline, folder)
        try:
            run(**arguments)
        except RuntimeError as error:
            # KFP says only that a task failed; the task itself has said why.
            _raise(relay, error, folder)


def _load_pipeline(name: str, folder: RunFolder) -> Callable[..., Any]:
    # kfp takes a second or more to import.
    from kfp import local
    from kfp.components import load_component_from_text

    from pipelines.compile import local_text

    runner = local.SubprocessRunner(use_venv=False)
    # The cache lies in the store, because its entries point into it.
    local.init(runner, pipeline_root=str(folder.kfp), enable_caching=True, cache_root=str(folder.store / "kfp-cache"))
    pipeline: Callable[..., Any] = load_component_from_text(local_text(name))
    return pipeline


def _raise(relay: Relay, failure: RuntimeError, folder: RunFolder) -> NoReturn:
    if relay.cause:
        raise_cause(relay.cause)
    raise StepFailedError(
        f"step {relay.step or 'resolve'} ended with an unexpected error; {folder.log} holds all that it said"
    ) from failure


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends this process through its clean-up: the running step then loses its reader, and stops."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet(relay: Relay) -> Iterator[None]:
    """Keeps KFP's prints, log lines and warnings in the log file."""
    handler = _KfpLog(relay)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with redirect_stdout(relay), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class _KfpLog(logging.Handler):
    def __init__(self, relay: Relay) -> None:
        super().__init__(logging.INFO)
        self._relay = relay

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if CACHE_HIT in message:
            task = message.split()[1].replace("-", "_")
            self._relay.write(f"{INDENT}step {task}: already done, nothing that it depends on has changed\n")
        else:
            self._relay.write(f"{record.levelname} {message}\n")


def _show_results(folder: RunFolder, paths: Mapping[str, Path]) -> None:
    """Puts what people look for where they look for it."""
    shutil.copyfile(paths["evaluation"] / "report.html", folder.path / "report.html")
    shutil.copyfile(paths["evaluation"] / "metrics.json", folder.path / "metrics.json")
    for name in ("bundle", "verdict"):
        link = folder.path / name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(paths[name], folder.path), target_is_directory=True)
