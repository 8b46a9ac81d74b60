"""What lavin_dit.planning says of memory and time, against steps that are taken: the J-DiT and the ST-VAE at several sizes, on this CPU.

Memory is the allocator's peak (in two processes: each one's resident memory). Time is processor time on one thread. The speed of a large
matrix product and the bandwidth of a copy are measured, and the first case of each network once more beside every other one: what it spends
on its activations predicts the other.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lavin_dit.config import Config, load_config
from lavin_dit.planning.devices import this_machine
from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.flops import dit_flops, dit_recomputed, vae_flops, vae_recomputed
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.memory import dit_memory, vae_memory
from lavin_dit.planning.parameters import dit_trained_parameters, vae_parameters
from lavin_dit.planning.rehearsal import Rehearsed, rehearse_dit, rehearse_vae
from lavin_dit.planning.step_time import Speeds, Work
from lavin_dit.training.processes import Processes, join_processes

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "tests" / "tiny.yaml"
MIB = 2**20


class Case(NamedTuple):
    network: str
    shape: str
    batch: int
    resolution: int
    pairs: int = 0
    checkpointing: str = "none"
    sharding: str = "none"


CASES = (
    Case("J-DiT", "laptop", 16, 64, 2),
    Case("J-DiT", "laptop", 4, 128, 4),
    Case("J-DiT", "laptop", 16, 64, 2, "full"),
    Case("J-DiT", "0.03B", 8, 64, 2),
    Case("J-DiT", "0.03B", 4, 128, 2),
    Case("J-DiT", "0.03B", 4, 128, 2, "full"),
    Case("ST-VAE", "laptop", 8, 64),
    Case("ST-VAE", "laptop", 4, 128),
    Case("ST-VAE", "small", 2, 64),
    Case("ST-VAE", "small", 4, 128, 0, "full"),
)
SPLIT = (Case("J-DiT", "0.03B", 8, 64, 2, "none", "full"), Case("J-DiT", "0.03B", 8, 64, 2, "full", "full"))


class Outcome(NamedTuple):
    taken: Rehearsed
    planned_bytes: int
    work: Work


def rehearse(case: Case, processes: Processes, steps: int) -> Outcome:
    """What a case took, the memory planned for it, and the work of its step."""
    config, plain = configured(case), configured(case._replace(checkpointing="none"))
    layout = Layout(processes.world_size, processes.world_size)
    parts = MicroBatches.of_share(layout.share(case.batch), None)
    shape: dict[str, Any] = {"samples": parts.samples, "count": parts.count, "resolution": case.resolution, "on_gpu": False}
    if case.network == "J-DiT":
        section = config.train_dit
        taken = rehearse_dit(section, processes, resolution=case.resolution, steps=steps)
        episodes = Episodes.of_pairs(1, num_pairs=case.pairs, resolution=case.resolution)
        forward = dit_flops(section.shape, samples=parts.samples, prompt_tokens=episodes.prompt, answer_tokens=episodes.answer)
        memory, kept = dit_memory(section, layout, **shape), dit_memory(plain.train_dit, layout, **shape).activations
        trained, recomputed = dit_trained_parameters(section.shape), dit_recomputed(case.checkpointing)
    else:
        taken = rehearse_vae(config.train_vae, processes, frames=1, resolution=case.resolution, steps=steps)
        size = {"samples": parts.samples, "frames": 1, "height": case.resolution, "width": case.resolution}
        forward = sum(vae_flops(config.train_vae.shape, **size))
        memory, kept = vae_memory(config.train_vae, layout, **shape), vae_memory(plain.train_vae, layout, **shape).activations
        trained, recomputed = sum(vae_parameters(config.train_vae.shape)), vae_recomputed(config.train_vae.shape, case.checkpointing)
    work = Work.of(forward_flops=forward, kept_bytes=kept, trained=trained, recomputed=recomputed)
    return Outcome(taken, memory.peak, work)


def configured(case: Case) -> Config:
    section = "train_dit" if case.network == "J-DiT" else "train_vae"
    values: dict[str, Any] = {
        "shape": f'"{case.shape}"',
        "batch_size": case.batch,
        "execution.activation_checkpointing": case.checkpointing,
        "execution.sharding": case.sharding,
    }
    values |= {"max_pairs": case.pairs} if case.pairs else {}
    return load_config(PARAMS, [f"{section}.{key}={value}" for key, value in values.items()])


def report(case: Case, outcome: Outcome, planned_s: float | None) -> str:
    peak, step_s = outcome.taken.peak_bytes, outcome.taken.step_s
    name = f"{case.network:6s} {case.shape:6s} {case.batch:3d} x {case.resolution:3d} px  {case.checkpointing:9s} {case.sharding:4s}"
    memory = f"{peak / MIB:7.1f} MiB, planned {outcome.planned_bytes / MIB:7.1f}, ratio {outcome.planned_bytes / peak:.3f}"
    speed = f"{step_s * 1e3:7.1f} ms, planned {planned_s * 1e3:7.1f}, ratio {planned_s / step_s:.2f}" if planned_s else ""
    return f"{name}   {memory}   {speed}"


def alone(cases: Sequence[Case], steps: int) -> None:
    torch.set_num_threads(1)
    processes, machine = Processes(0, 1, torch.device("cpu")), this_machine()
    print(f"products {machine.float32_flops / 1e9:.0f} GFLOP/s, copies {machine.memory_bandwidth / 1e9:.1f} GB/s", flush=True)
    for case in cases:
        first = next(each for each in cases if each.network == case.network)
        calibration, outcome = rehearse(first, processes, steps), rehearse(case, processes, steps)
        speeds = Speeds.calibrated(
            calibration.work, calibration.taken.step_s, products=machine.float32_flops, updates=machine.memory_bandwidth
        )
        print(report(case, outcome, speeds.step_s(outcome.work)), flush=True)


def in_two(arguments: str) -> None:
    torch.set_num_threads(1)
    with join_processes() as processes:
        # What libraries hold for good is there before anything is measured.
        rehearse(Case("J-DiT", "tiny", 4, 32, 1, "none", "full"), processes, 0)
        case = Case(*json.loads(arguments))
        outcome = rehearse(case, processes, 0)
        if processes.is_first:
            print(report(case, outcome, None), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        in_two(arguments.case)
        return
    alone(CASES, arguments.steps)
    # Freed memory goes back at once, so that what is resident is what is alive.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for case in SPLIT:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
        subprocess.run([*torchrun, "--case", json.dumps(case)], check=True, env=environment)


if __name__ == "__main__":
    main()
