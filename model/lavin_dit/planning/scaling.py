"""The tables of docs/scaling.md: `python -m lavin_dit.planning.scaling` writes them anew. Never imports torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavin_dit.config import Config, load_config
from lavin_dit.planning.devices import DEVICES
from lavin_dit.planning.layout import Layout
from lavin_dit.planning.plan import JobPlan, plan_dit
from lavin_dit.planning.step_time import DEFAULT_MFU, Fleet
from lavin_dit.presets import DIT_PRESETS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT, RECIPE = ROOT / "docs" / "scaling.md", ROOT / "recipes" / "paper.yaml"
BEGIN, END = "<!-- begin: {name} -->", "<!-- end: {name} -->"
SIZES = ("0.1B", "1.0B", "3.4B")
STAGES = ((256, 100_000), (512, 20_000))
"""The paper's: pixels a side, steps."""
NUM_GPUS = (1, 8, 64, 512)
DEVICE = DEVICES["h200"]
CHECKPOINTING, SHARDING = ("none", "selective", "full"), ("none", "full", "hybrid")
HEADER = "| size | GPUs | layout | micro-batches | peak, GiB | step | waiting | MFU | days | GPU-hours |"
ALIGNMENT = "|---|--:|---|---|--:|--:|--:|--:|--:|--:|"
GIB, DAY_S, HOUR_S = 2**30, 86400.0, 3600.0


def best_plan(config: Config, size: str, num_gpus: int) -> JobPlan | None:
    """The fastest layout of a size that fits; None where none does."""
    fleet = Fleet(DEVICE, Layout(num_gpus, DEVICE.gpus_per_node), DEFAULT_MFU)
    fitting = [job for job in _candidates(config, size, fleet) if job.fits]
    # Of equally fast ones the plainest, which comes first: differences beyond these digits are rounding.
    return min(fitting, key=lambda job: float(f"{job.time.step_s:.9g}"), default=None)


def table(resolution: int, steps: int) -> str:
    """One stage of the paper's training, over sizes and numbers of GPUs, as Markdown."""
    changes = [f"prepare.resolution={resolution}", f"train_dit.steps={steps}", "train_dit.execution.precision=bfloat16"]
    config = load_config(RECIPE, changes)
    rows = [HEADER, ALIGNMENT]
    for size in SIZES:
        rows += [_row(size, num_gpus, best_plan(config, size, num_gpus)) for num_gpus in NUM_GPUS]
    return "\n".join(rows)


def tables() -> dict[str, str]:
    """Every table by its name in the document."""
    return {f"{resolution} px": table(resolution, steps) for resolution, steps in STAGES}


def fill(document: str) -> str:
    """The document with its tables written anew."""
    for name, text in tables().items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        document = f"{before}{begin}\n{text}\n{end}{after}"
    return document


def _candidates(config: Config, size: str, fleet: Fleet) -> Iterator[JobPlan]:
    for sharding in SHARDING if fleet.layout.num_gpus > 1 else SHARDING[:1]:
        for checkpointing in CHECKPOINTING:
            changes = {"sharding": sharding, "activation_checkpointing": checkpointing, "micro_batch": None}
            job = plan_dit(_changed(config, size, changes), fleet)
            if job.largest_micro_batch is not None:
                yield plan_dit(_changed(config, size, changes | {"micro_batch": job.largest_micro_batch}), fleet)


def _changed(config: Config, size: str, execution: dict[str, Any]) -> Config:
    section = config.train_dit
    changes = {"shape": DIT_PRESETS[size], "execution": section.execution.model_copy(update=execution)}
    return config.model_copy(update={"train_dit": section.model_copy(update=changes)})


def _row(size: str, num_gpus: int, job: JobPlan | None) -> str:
    if job is None:
        return f"| {size} | {num_gpus} | does not fit | | | | | | | |"
    parts, time = job.micro_batches, job.time
    gpu_hours = num_gpus * job.duration_s / HOUR_S
    return (
        f"| {size} | {num_gpus} | {job.layout} | {parts.count} x {parts.samples} | {job.memory.peak / GIB:.0f} | {_seconds(time.step_s)} | "
        f"{time.exposed_s / time.step_s:.0%} | {job.mfu:.2f} | {job.duration_s / DAY_S:.2g} | {gpu_hours:,.0f} |"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


if __name__ == "__main__":
    DOCUMENT.write_text(fill(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
