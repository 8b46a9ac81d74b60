"""What lavin_dit.planning says of memory and time, against steps that are taken: the J-DiT and the ST-VAE at several sizes.

Memory is the allocator's peak (in two processes: each one's resident memory). Time on a CPU is processor time on one thread, planned from
that of each distinct layer alone, on a part of the micro-batch where it is large, and from the bandwidth of a copy. On a GPU (`--on gpu`)
it is the clock's, reckoned for the J-DiT, and at the share of the peak that is assumed for the ST-VAE.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lavin_dit.config import load_config
from lavin_dit.planning.devices import Device, known_device
from lavin_dit.planning.dit_activations import FLOAT32
from lavin_dit.planning.dit_layer_times import dit_passes_s
from lavin_dit.planning.flops import vae_recomputed
from lavin_dit.planning.gpu_times import plain_passes_s
from lavin_dit.planning.layer_times import ALONE, Stopwatch
from lavin_dit.planning.layers import Network, dit_network, vae_network
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.memory import dit_memory, vae_memory
from lavin_dit.planning.rehearsal import rehearse_dit, rehearse_vae
from lavin_dit.planning.step_time import ACCESSES_OF_AN_UPDATE, DEFAULT_MFU
from lavin_dit.planning.vae_layer_times import vae_passes_s
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.workload import vae_sample_flops
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training_config import AdversarialConfig, ClipEpisodesConfig, ClipsConfig, LoraConfig, TrainDitConfig, TrainVaeConfig

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "tests" / "tiny.yaml"
MIB = 2**20
EXECUTION = {"micro_batch", "precision", "activation_checkpointing", "sharding"}
DISCRIMINATOR = AdversarialConfig(weight=0.5, first_step=0, width=32, num_layers=3, learning_rate=1e-4)
COPIED_NUMBERS, REPEATS = 2**24, 5
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Has freed memory go back at once, so that what is resident is what is alive; it makes steps take twice as long."""


class Case(NamedTuple):
    network: str
    shape: str
    batch: int
    resolution: int
    changes: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Of its section or its execution; `lora` a rank, `frames` those of its clips, `judged` whether by structure and a discriminator."""


FULL, SELECTIVE = ({"activation_checkpointing": kind} for kind in ("full", "selective"))
CASES = (
    Case("J-DiT", "laptop", 16, 64),
    Case("J-DiT", "laptop", 4, 128, {"max_pairs": 4}),
    Case("J-DiT", "laptop", 16, 64, FULL),
    Case("J-DiT", "laptop", 4, 64, {"frames": 9}),
    Case("J-DiT", "laptop", 4, 128, {"max_pairs": 4, "precision": "bfloat16"}),
    Case("J-DiT", "laptop", 4, 128, {"lora": 8}),
    Case("J-DiT", "laptop", 4, 128, {"frozen": ["blocks.0", "blocks.1"]}),
    Case("J-DiT", "0.03B", 8, 64),
    Case("J-DiT", "0.03B", 4, 128),
    Case("J-DiT", "0.03B", 4, 128, FULL),
    Case("ST-VAE", "laptop", 8, 64),
    Case("ST-VAE", "laptop", 4, 128),
    Case("ST-VAE", "laptop", 8, 64, {"judged": True}),
    Case("ST-VAE", "laptop", 2, 64, {"judged": True, "frames": 9} | SELECTIVE),
    Case("ST-VAE", "laptop", 8, 64, {"frozen": ["encoder"]}),
    Case("ST-VAE", "small", 2, 64),
    Case("ST-VAE", "small", 4, 128, FULL),
    Case("J-DiT", "0.03B", 8, 64, {"lora": 16}),
    Case("ST-VAE", "laptop", 4, 128, {"precision": "bfloat16"}),
    Case("ST-VAE", "small", 2, 128),
)
SPLIT = {"sharding": "full"}
IN_TWO = (
    Case("J-DiT", "0.03B", 8, 64),
    Case("J-DiT", "0.03B", 8, 64, {"micro_batch": 2}),
    Case("J-DiT", "0.03B", 4, 64, {"lora": 16}),
    Case("J-DiT", "0.03B", 8, 64, SPLIT),
    Case("J-DiT", "0.03B", 8, 64, SPLIT | FULL),
    Case("J-DiT", "0.03B", 8, 64, SPLIT | {"precision": "bfloat16"}),
    Case("J-DiT", "0.03B", 8, 64, SPLIT | {"micro_batch": 2}),
    Case("ST-VAE", "small", 4, 64, {"judged": True}),
    Case("ST-VAE", "small", 4, 64, SPLIT | {"judged": True}),
)
HALF = {"precision": "bfloat16"}
FOUR, EIGHT = ({"max_pairs": count} for count in (4, 8))
ON_GPU = (
    Case("J-DiT", "laptop", 16, 64),
    Case("J-DiT", "0.03B", 16, 128, FOUR | HALF),
    Case("J-DiT", "0.1B", 16, 128, FOUR | HALF),
    Case("J-DiT", "0.1B", 16, 128, FOUR),
    Case("J-DiT", "0.1B", 16, 128, FOUR | HALF | {"lora": 16}),
    Case("J-DiT", "0.1B", 32, 128, FOUR | HALF | {"micro_batch": 8}),
    Case("J-DiT", "0.1B", 8, 256, EIGHT | HALF),
    Case("J-DiT", "0.1B", 8, 256, EIGHT | HALF | FULL),
    Case("J-DiT", "0.1B", 8, 256, EIGHT | HALF | SELECTIVE),
    Case("J-DiT", "1.0B", 4, 256, EIGHT | HALF),
    Case("ST-VAE", "laptop", 32, 64),
    Case("ST-VAE", "small", 4, 128),
    Case("ST-VAE", "small", 8, 256, HALF),
    Case("ST-VAE", "small", 8, 256, HALF | FULL),
    Case("ST-VAE", "small", 4, 128, HALF | {"frames": 9}),
    Case("ST-VAE", "small", 4, 128, HALF | {"frames": 9, "judged": True}),
)


class Outcome(NamedTuple):
    """What a case took and what was planned for it. Units: bytes, seconds."""

    peak: int
    planned_peak: int
    step_s: float
    planned_s: float


def measured(case: Case, processes: Processes, steps: int) -> Outcome:
    """One case in this process: what it took, and what was planned for it; of time only where it takes steps."""
    section, frames = configured(case), case.changes.get("frames", 1)
    layout, on_gpu = Layout(processes.world_size, processes.world_size), processes.device.type == "cuda"
    parts = MicroBatches.of_share(layout.share(case.batch), section.execution.micro_batch)
    size: dict[str, Any] = {"samples": parts.samples, "resolution": case.resolution}
    network: Network
    passes_s: Callable[..., float]
    if isinstance(section, TrainDitConfig):
        taken = rehearse_dit(section, processes, resolution=case.resolution, frames=frames, steps=steps)
        planned = dit_memory(section, layout, **size, count=parts.count, on_gpu=on_gpu, clip_frames=frames).peak
        network = dit_network(section, **size, frames=frames, on_gpu=on_gpu)
        passes_s = partial(plain_passes_s, section, this_gpu(), count=parts.count) if on_gpu else partial(dit_passes_s, section)
    else:
        taken = rehearse_vae(section, processes, frames=frames, resolution=case.resolution, steps=steps)
        planned = vae_memory(section, layout, **size, count=parts.count, on_gpu=on_gpu).peak
        network = vae_network(section, **size, frames=frames, on_gpu=on_gpu)
        passes_s = partial(assumed_passes_s, section, network) if on_gpu else partial(vae_passes_s, section)
    planned_s = (
        step_s(partial(passes_s, **size, frames=frames), network, parts, layout.shards(section.execution), processes) if steps else 0.0
    )
    return Outcome(taken.peak_bytes, planned, taken.step_s, planned_s)


def step_s(passes_s: Callable[..., float], network: Network, parts: MicroBatches, shards: int, processes: Processes) -> float:
    """What is planned for a step: nothing hides anything else."""
    updated = FLOAT32 * network.trained // shards + network.judges.gradients
    if processes.device.type == "cuda":
        return parts.count * passes_s() + ACCESSES_OF_AN_UPDATE * updated / this_gpu().memory_bandwidth
    last = Stopwatch(processes, is_last=True, clock=time.process_time)
    computing_s = passes_s(stopwatch=last)
    if parts.count > 1:
        computing_s += (parts.count - 1) * passes_s(stopwatch=dataclasses.replace(last, is_last=False))
    return computing_s + ACCESSES_OF_AN_UPDATE * updated / copied_a_second()


def assumed_passes_s(section: TrainVaeConfig, network: Network, *, samples: int, resolution: int, frames: int) -> float:
    """The ST-VAE's passes on a GPU."""
    passes = 1 + network.backward + vae_recomputed(section.shape, section.execution.activation_checkpointing)
    flops = passes * samples * vae_sample_flops(section, Volume(frames, resolution, resolution))
    return flops / (DEFAULT_MFU * this_gpu().peak_flops(section.execution.precision))


def this_gpu() -> Device:
    name = torch.cuda.get_device_name()
    device = known_device(name)
    if device is None:
        sys.exit(f"{name} is not among the devices of lavin_dit.planning.devices")
    return device


def configured(case: Case, **more: Any) -> TrainDitConfig | TrainVaeConfig:
    name = "train_dit" if case.network == "J-DiT" else "train_vae"
    changes = case.changes | more
    frames, rank, is_judged = changes.pop("frames", 1), changes.pop("lora", 0), changes.pop("judged", False)
    values = {"shape": case.shape, "batch_size": case.batch} | changes | ({"perceptual.weight": 0.1} if is_judged else {})
    sets = [f"{name}.{'execution.' if key in EXECUTION else ''}{key}={json.dumps(value)}" for key, value in values.items()]
    section: TrainDitConfig | TrainVaeConfig = getattr(load_config(PARAMS, sets), name)
    updates: dict[str, Any] = {"adversarial": DISCRIMINATOR} if is_judged else {}
    if isinstance(section, TrainDitConfig):
        updates |= {"clips": ClipEpisodesConfig(share=1.0, max_pairs=section.max_pairs)} if frames > 1 else {}
        updates |= {"lora": LoraConfig(rank=rank, alpha=8.0)} if rank else {}
    else:
        updates |= {"clips": ClipsConfig(first_step=0, share=1.0, frames=frames)} if frames > 1 else {}
    return section.model_copy(update=updates)


def report(case: Case, memory: Outcome, speed: Outcome) -> str:
    changes = ", ".join(f"{key} {value}" for key, value in case.changes.items())
    name = f"{case.network:6s} {case.shape:6s} {case.batch:3d} x {case.resolution:3d} px  {changes:50s}"
    peak, planned, step_s, planned_s = memory.peak, memory.planned_peak, speed.step_s, speed.planned_s
    sizes = f"{peak / MIB:7.1f} MiB, planned {planned / MIB:7.1f}, ratio {planned / peak:.3f}"
    return f"{name}   {sizes}   {step_s * 1e3:7.1f} ms, planned {planned_s * 1e3:7.1f}, ratio {planned_s / step_s:.2f}"


def alone(cases: Sequence[Case], processes: Processes, steps: int) -> None:
    torch.set_num_threads(1)
    for case in cases:
        outcome = measured(case, processes, steps)
        print(report(case, outcome, outcome), flush=True)


def one_of_two(case: Case, steps: int) -> None:
    """Says what a case took, as a line of JSON, in one of two processes."""
    torch.set_num_threads(1)
    with join_processes() as processes:
        # What libraries hold for good is there before anything is measured.
        measured(case._replace(shape="tiny", batch=4, resolution=64), processes, 0)
        outcome = measured(case, processes, steps)
        if processes.is_first:
            print(json.dumps(outcome), flush=True)


def in_two(case: Case, steps: int, environment: dict[str, str]) -> Outcome:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    arguments = ["--steps", str(steps), "--case", json.dumps(case)]
    threads = {"OMP_NUM_THREADS": "1"}
    said = subprocess.run([*torchrun, *arguments], check=True, env=os.environ | threads | environment, stdout=subprocess.PIPE, text=True)
    return Outcome(*json.loads(said.stdout.splitlines()[-1]))


def copied_a_second() -> float:
    """Bytes that a copy reads and writes."""
    source, target = torch.ones(COPIED_NUMBERS), torch.empty(COPIED_NUMBERS)
    return 2 * source.nbytes / fastest_s(lambda: target.copy_(source))


def fastest_s(run: Callable[[], object]) -> float:
    return min(_seconds(run) for _ in range(REPEATS))


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--on", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        one_of_two(Case(*json.loads(arguments.case)), arguments.steps)
        return
    if arguments.on == "gpu":
        if not torch.cuda.is_available():
            sys.exit("--on gpu: needs a CUDA device")
        alone(ON_GPU, Processes(0, 1, torch.device("cuda", torch.cuda.current_device())), arguments.steps)
        return
    alone(CASES, ALONE, arguments.steps)
    for case in IN_TWO:
        print(report(case, in_two(case, 0, RETURNING), in_two(case, arguments.steps, {})), flush=True)


if __name__ == "__main__":
    main()
