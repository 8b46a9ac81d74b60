"""Carries out one step: in this process, in several under torchrun, or in a job of a cluster."""

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from components.entry import rank
from components.folders import exclusive, write_text
from components.launcher.local import run_under_torchrun
from components.launcher.settings import ONE_PROCESS, JobSettings
from components.steps import DISTRIBUTED, load_step
from lavin_dit.config import section_to_json
from lavin_dit.errors import InputError
from lavin_dit.section import Section

logger = logging.getLogger(__name__)

STARTED = "step {name}: started"
FINISHED = "step {name}: finished in {seconds:.1f} s"


def execute(
    name: str, section: Section, inputs: Mapping[str, Path], outputs: Mapping[str, Path], *, job: JobSettings = ONE_PROCESS
) -> None:
    """Runs a step from its section and folders; one process at a time may make an output.

    Raises: InputError where a step is asked to run in several processes and cannot.
    """
    if (job.processes > 1 or job.nodes > 1) and name not in DISTRIBUTED:
        raise InputError(f"--processes {job.processes}: must be 1 for step {name}; {' and '.join(DISTRIBUTED)} take any number from 1")
    if "RANK" in os.environ:
        # One of several processes: whoever started them tells how the step goes.
        _run_here(name, section, inputs, outputs)
        return
    logger.info(STARTED.format(name=name))
    started = time.monotonic()
    if job.is_on_cluster:
        _launch(name, section, inputs, outputs, job)
    elif job.processes > 1:
        _distribute(name, section, inputs, outputs, job.processes)
    else:
        _run_here(name, section, inputs, outputs)
    logger.info(FINISHED.format(name=name, seconds=time.monotonic() - started))


def _run_here(name: str, section: Section, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    step = load_step(name)
    assert tuple(inputs) == step.inputs, f"{name} reads {step.inputs}, not {tuple(inputs)}"
    assert tuple(outputs) == step.outputs, f"{name} writes {step.outputs}, not {tuple(outputs)}"
    if rank() > 0:
        step.run(section, inputs, outputs)
        return
    with exclusive(next(iter(outputs.values()))):
        step.run(section, inputs, outputs)


def _distribute(name: str, section: Section, inputs: Mapping[str, Path], outputs: Mapping[str, Path], processes: int) -> None:
    with tempfile.TemporaryDirectory(prefix="lavin-") as folder:
        section_file = Path(folder) / f"{name}.json"
        section_file.write_text(section_to_json(section), encoding="utf-8")
        run_under_torchrun(name, _arguments(name, section_file, inputs, outputs), processes=processes)


def _launch(name: str, section: Section, inputs: Mapping[str, Path], outputs: Mapping[str, Path], job: JobSettings) -> None:
    """Every folder lies on the volume that the job's pods share, and the section beside the output."""
    # The Kubernetes client takes a second to import, and most runs do without it.
    from components.launcher.launch import JobRequest, launch
    from components.launcher.settings import load_platform
    from components.launcher.surroundings import Surroundings

    output = next(iter(outputs.values()))
    section_file = output.with_name(f".{output.name}.section.json")
    section_file.parent.mkdir(parents=True, exist_ok=True)
    write_text(section_file, section_to_json(section))
    request = JobRequest(name, _arguments(name, section_file, inputs, outputs), job)
    launch(request, Surroundings.from_environment(), load_platform())


def _arguments(name: str, section_file: Path, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> list[str]:
    """What follows `python -m components`."""
    arguments = [name, "--section", str(section_file)]
    arguments += [part for key, path in inputs.items() for part in ("--input", f"{key}={path}")]
    return arguments + [part for key, path in outputs.items() for part in ("--output", f"{key}={path}")]
