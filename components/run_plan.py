"""What a run is to do, checked as a whole in seconds: configuration, data at a revision, and the cluster that is to do it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from components.data_version import data_hash
from components.launcher.settings import JobSettings, Platform
from components.pod_environment import REPOSITORY_VARIABLE
from components.resolve import check_data, write_plan
from components.run_request import RunRequest
from components.tracked_data import Located, fetched_folder, list_names, locate, remember, remember_folder
from lavin_dit.config import Config
from lavin_dit.data.raw.sources import TAR_SUFFIX
from lavin_dit.errors import InputError
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.memory import GIB, RESERVED_GIB
from lavin_dit.planning.plan import dit_job_memory, vae_job_memory

DEFAULT_REVISION = "HEAD"


@dataclass(frozen=True)
class RunData:
    """The user's data of a run: DVC's hash of them, and where they come from, for people."""

    hash: str
    origin: str


def plan_run(config: Config, request: RunRequest, *, workspace: Path, plan: Path) -> RunData:
    """Checks the configuration against the data, remembers where the data are, and writes the plan.

    Raises: InputError naming the parameter, folder or revision.
    """
    repository = request.repository()
    if request.data_revision and not repository:
        raise InputError(
            f"data_revision is {request.data_revision}: there is no repository to find it in; give data_repository, "
            f"or set {REPOSITORY_VARIABLE} in the ConfigMap lavin-settings"
        )
    if not repository:
        folder = Path(request.raw)
        check_data(config, folder)
        data = RunData(data_hash(folder), f"the folder {request.raw}" if folder.exists() else "rendered scenes alone")
        remember_folder(folder, data.hash, workspace)
    else:
        located = locate(repository, request.data_revision or DEFAULT_REVISION, request.raw)
        _check_tracked(config, located, workspace)
        data = RunData(located.md5, f"{located.path} of {located.repository} at {located.commit}")
        remember(located, workspace)
    write_plan(config, data.hash, plan)
    return data


def _check_tracked(config: Config, located: Located, workspace: Path) -> None:
    """Checks names alone: what is inside of tars, and inside of pictures, `prepare` finds when it has fetched them."""
    folder = fetched_folder(located.md5, workspace)
    if folder.is_dir():
        check_data(config, folder)
        return
    names = list_names(located)
    if any(name.endswith(TAR_SUFFIX) for name in names):
        return
    with tempfile.TemporaryDirectory(prefix="lavin-") as scratch:
        for name in names:
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        check_data(config, Path(scratch))


def check_job(config: Config, job: JobSettings, platform: Platform) -> None:
    """Refuses what the processes of a job cannot do: share a batch, or hold the network.

    Raises: InputError naming the parameter, its value and what is allowed.
    """
    if job.accelerator not in platform.accelerators:
        raise InputError(f"accelerator is {job.accelerator}: must be one of {', '.join(platform.accelerators)}")
    for step in ("train_vae", "train_dit"):
        size, most = getattr(config, step).batch_size, job.nodes * job.processes
        if size < most:
            raise InputError(
                f"{step}.batch_size is {size}: must be at least the number of processes "
                f"({job.nodes} nodes x {job.processes} processes_per_node)"
            )
    _check_memory(config, job, platform)


def _check_memory(config: Config, job: JobSettings, platform: Platform) -> None:
    """At the fewest nodes that the job may go on with, where a process has the most to hold."""
    accelerator = platform.accelerators[job.accelerator]
    if accelerator.memory_gib is None:
        return
    layout = Layout(job.min_nodes * job.processes, job.processes)
    for step, memory_of in (("train_vae", vae_job_memory), ("train_dit", dit_job_memory)):
        section = getattr(config, step)
        parts = MicroBatches.of_share(layout.share(section.batch_size), section.execution.micro_batch)
        memory = memory_of(config, layout, parts, on_gpu=True)
        if not memory.fits(accelerator.memory_gib):
            raise InputError(
                f"{step} needs about {memory.peak / GIB + RESERVED_GIB:.1f} GiB of memory a process, and accelerator {job.accelerator} has "
                f"{accelerator.memory_gib:g}: choose a smaller model_size or {step}.execution.micro_batch, execution.sharding or "
                "activation_checkpointing, more processes, or another accelerator (lavin plan shows what fits)"
            )
