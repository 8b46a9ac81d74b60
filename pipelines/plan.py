"""`lavin plan`: what a recipe asks of a fleet of GPUs, in a second, before one is asked for."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.entry import FAILURE
from lavin_dit.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from lavin_dit.planning.plan import JobPlan, Plan

GIB, MIB, DAY_S, HOUR_S = 2**30, 2**20, 86400.0, 3600.0
COMPILED = (
    "torch.compile is on for the {}, and is not modelled: memory is that of plain blocks, and speed is what --mfu says, or 0.35 of the peak"
)
OFFLOADED = (
    "cpu_offload is on for the {}, and its time is not modelled: the host updates the weights, and gathers fetch them from it, so that a "
    "step takes longer than this"
)

Gpu = Annotated[str, typer.Option(metavar="NAME", help="Which: a100-40, a100-80, h100, h200, b200, l4, rtx4090 ..., or cpu: this machine.")]
Mfu = Annotated[
    float | None,
    typer.Option(
        help="Share of the GPU's peak that the operations reach while they run; a running job's telemetry says its own. Not stated, the "
        "layers of a CPU are timed, plain blocks on GPUs are reckoned with what an H100 did, and 0.35 is assumed of anything else.",
        show_default=False,
    ),
]


def plan(
    *,
    params: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A whole params file (default: params.yaml).", show_default=False)
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="A recipe, recipes/NAME.yaml, instead of a params file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one value; repeatable.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many; one process each.")] = 1,
    gpu: Gpu = "h200",
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="How many a node holds (default: 8).", show_default=False)] = None,
    mfu: Mfu = None,
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 where something does not fit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every figure as JSON, in bytes and seconds.")] = False,
) -> None:
    """Says what training a recipe takes before anything is launched: memory, time, disk and network.

    Exit code 0 even where it does not fit, which the table says; --check makes that exit code 1.
    """
    from components.recipes import params_file
    from lavin_dit.config import load_config
    from lavin_dit.planning.devices import device_named
    from lavin_dit.planning.layout import Layout
    from lavin_dit.planning.plan import plan as plan_of
    from lavin_dit.planning.step_time import Fleet

    if mfu is not None and not 0 < mfu <= 1:
        raise InputError(f"--mfu {mfu}: must be above 0 and at most 1")
    config = load_config(params_file(params, recipe), overrides or ())
    device = device_named(gpu)
    planned = plan_of(config, Fleet(device, Layout(gpus, gpus_per_node or device.gpus_per_node), mfu))
    if as_json:
        typer.echo(json.dumps(as_document(planned), indent=1))
    else:
        _print(planned)
    if check and not planned.fits:
        raise typer.Exit(FAILURE)


def as_document(planned: "Plan") -> dict[str, Any]:
    """A plan with what follows from it."""
    document = dataclasses.asdict(planned)
    for name, job in (("vae", planned.vae), ("dit", planned.dit)):
        document[name] |= {"duration_s": job.duration_s}
        document[name]["time"] |= {"step_s": job.time.step_s}
    return document | {"fits": planned.fits, "duration_s": planned.duration_s, "gpu_hours": planned.gpu_hours}


def _print(planned: "Plan") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    fleet = planned.fleet
    nodes = f"{fleet.layout.num_nodes} node{'s' if fleet.layout.num_nodes > 1 else ''} of {fleet.layout.gpus_of_node}"
    gpus = f"{fleet.layout.num_gpus} x {fleet.device.name} ({nodes}, {fleet.device.memory_gib:.0f} GiB each)"
    console.print(f"{gpus}\n")
    console.print(_table(planned))
    data = planned.data
    console.print(
        f"\n{'data':>9}  {data.num_pairs:,} pairs in {_size(data.shard_bytes)} of shards; {data.num_pictures:,} pictures' latents take "
        f"{_size(data.latent_bytes)} of disk, and {_duration(data.encode_s)} to encode"
    )
    console.print(f"{'in all':>9}  {_duration(planned.duration_s)}, {planned.gpu_hours:,.1f} GPU-hours")
    for job in (planned.vae, planned.dit):
        console.print(f"{job.job:>9}  {_verdict(job)}", markup=False)
    jobs = (planned.vae, planned.dit)
    for words, named in (
        (COMPILED, [job.job for job in jobs if job.is_compiled]),
        (OFFLOADED, [job.job for job in jobs if job.memory.host]),
    ):
        if named:
            console.print(f"{'note':>9}  {words.format(' and '.join(named))}")


def _table(planned: "Plan") -> "Table":
    from rich.table import Table

    jobs = (planned.vae, planned.dit)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for job in jobs:
        table.add_column(job.job, justify="right")
    has_host = any(job.memory.host for job in jobs)
    for row in zip(*(_rows(job, has_host=has_host) for job in jobs), strict=True):
        (name, *_), values = row[0], [value for _, value in row]
        table.add_row(name, *values)
    return table


def _rows(job: "JobPlan", *, has_host: bool) -> Iterator[tuple[str, str]]:
    """`has_host`: whether a job keeps its state on the host."""
    memory, time = job.memory, job.time
    yield "parameters", f"{job.num_parameters:,}"
    yield "batch", f"{job.batch_size}, {job.micro_batches.count} x {job.micro_batches.samples} a GPU"
    for name in ("weights", "gradients", "moments", "average", "judges", "copies", "activations"):
        yield f"  {name}", _size(getattr(memory, name))
    yield "peak memory of a GPU", _size(memory.peak)
    if has_host:
        yield "on its host", _size(memory.host)
    yield "largest micro-batch", "none fits" if job.largest_micro_batch is None else str(job.largest_micro_batch)
    yield "operations a step", f"{job.step_flops / 1e12:,.3g} TFLOP"
    yield "  computing", _seconds(time.compute_s)
    yield "    speed of a GPU", f"{job.speed.flops / 1e12:,.3g} TFLOP/s, {job.speed.basis}"
    yield "  waiting for the network", _seconds(time.exposed_s)
    yield "  updating", _seconds(time.update_s)
    yield "step", _seconds(time.step_s)
    yield "MFU", f"{job.mfu:.1%}"
    yield "to the end", f"{job.steps:,} steps, {_duration(job.duration_s)}"
    yield "checkpoint", f"{_size(job.checkpoint_bytes)}, {job.checkpoints_kept} kept"
    yield "reading", f"{job.read_bytes_a_second / MIB:,.1f} MiB/s"
    yield "sent by a GPU a step", f"{_size(job.traffic.node_bytes)} in its node, {_size(job.traffic.network_bytes)} out of it"


def _verdict(job: "JobPlan") -> str:
    if job.fits:
        return "fits"
    if job.largest_micro_batch is None:
        return "DOES NOT FIT, not even one sample: shard the state, checkpoint activations, or take more or larger GPUs"
    return f"DOES NOT FIT: fits with execution.micro_batch {job.largest_micro_batch}"


def _size(num_bytes: float) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", GIB), ("MiB", MIB)):
        if num_bytes >= size or unit == "MiB":
            return f"{num_bytes / size:,.3g} {unit}" if num_bytes < 1000 * size else f"{num_bytes / size:,.0f} {unit}"
    raise AssertionError


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _duration(seconds: float) -> str:
    if seconds >= DAY_S:
        return f"{seconds / DAY_S:.1f} days"
    return f"{seconds / HOUR_S:.1f} h" if seconds >= HOUR_S else f"{seconds / 60:.1f} min"
