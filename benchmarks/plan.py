"""What lavin_dit.planning says of memory and time, against steps that are taken: the J-DiT and the ST-VAE at several sizes, on this CPU.

Memory is the allocator's peak (in two processes: each one's resident memory). Time is processor time on one thread. The speed of a large
matrix product and the bandwidths of a copy and of an all-reduce are measured, and the first case of each network once more beside every
other one: what it spends on its activations predicts the other.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from lavin_dit.config import load_config
from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.flops import dit_flops, dit_recomputed, vae_flops, vae_recomputed
from lavin_dit.planning.layers import Network, dit_network, vae_network
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.memory import dit_memory, vae_memory
from lavin_dit.planning.rehearsal import Rehearsed, rehearse_dit, rehearse_vae
from lavin_dit.planning.step_time import Speeds, Work
from lavin_dit.planning.traffic import Traffic, traffic_of
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import terms_flops
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training_config import AdversarialConfig, ClipEpisodesConfig, ClipsConfig, LoraConfig, TrainDitConfig, TrainVaeConfig

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "tests" / "tiny.yaml"
MIB = 2**20
EXECUTION = {"micro_batch", "precision", "activation_checkpointing", "sharding"}
ALONE = Processes(0, 1, torch.device("cpu"))
DISCRIMINATOR = AdversarialConfig(weight=0.5, first_step=0, width=32, num_layers=3, learning_rate=1e-4)
PRODUCT_SIDE, COPIED_NUMBERS, REPEATS = 1024, 2**24, 5


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
)
SPLIT = {"sharding": "full"}
IN_TWO = (
    Case("J-DiT", "0.03B", 8, 64),
    Case("J-DiT", "0.03B", 8, 64, {"micro_batch": 2}),
    Case("J-DiT", "0.03B", 4, 64, {"lora": 16}),
    Case("J-DiT", "0.03B", 8, 64, SPLIT),
    Case("J-DiT", "0.03B", 8, 64, SPLIT | FULL),
    Case("J-DiT", "0.03B", 8, 64, SPLIT | {"precision": "bfloat16"}),
    Case("ST-VAE", "small", 4, 64, {"judged": True}),
    Case("ST-VAE", "small", 4, 64, SPLIT | {"judged": True}),
)


class Outcome(NamedTuple):
    taken: Rehearsed
    planned_bytes: int
    work: Work
    traffic: Traffic


def rehearse(case: Case, processes: Processes, steps: int) -> Outcome:
    """What a case took, the memory planned for it, the work of its step and what it sends."""
    layout, frames = Layout(processes.world_size, processes.world_size), case.changes.get("frames", 1)
    section, plain = configured(case), configured(case, activation_checkpointing="none")
    parts = MicroBatches.of_share(layout.share(case.batch), section.execution.micro_batch)
    one = {"samples": parts.samples, "resolution": case.resolution, "frames": frames, "on_gpu": False}
    many: dict[str, Any] = {"samples": parts.samples, "count": parts.count, "resolution": case.resolution, "on_gpu": False}
    network: Network
    if isinstance(section, TrainDitConfig):
        assert isinstance(plain, TrainDitConfig)
        taken = rehearse_dit(section, processes, resolution=case.resolution, frames=frames, steps=steps)
        planned = dit_memory(section, layout, **many, clip_frames=frames).peak
        network, kept = dit_network(section, **one), dit_memory(plain, layout, **many, clip_frames=frames).activations
        episodes = Episodes.of_pairs(parts.samples, num_pairs=section.max_pairs, resolution=case.resolution, frames=frames)
        forward = dit_flops(section.shape, samples=parts.samples, prompt_tokens=episodes.prompt, answer_tokens=episodes.answer)
        recomputed, judging = dit_recomputed(section.execution.activation_checkpointing), 0.0
    else:
        assert isinstance(plain, TrainVaeConfig)
        taken = rehearse_vae(section, processes, frames=frames, resolution=case.resolution, steps=steps)
        planned = vae_memory(section, layout, **many).peak
        network, kept = vae_network(section, **one), vae_memory(plain, layout, **many).activations
        size = Volume(frames, case.resolution, case.resolution)
        forward = sum(vae_flops(section.shape, samples=parts.samples, frames=frames, height=size.height, width=size.width))
        judging = parts.samples * terms_flops(section, size)
        recomputed = vae_recomputed(section.shape, section.execution.activation_checkpointing)
    work = Work.of(
        forward_flops=parts.count * forward,
        kept_bytes=parts.count * kept,
        trained=network.trained // layout.shards(section.execution),
        backward=network.backward + recomputed,
        judging_flops=parts.count * judging,
    )
    traffic = traffic_of(
        section.execution, layout, weights=network.weights, trained=network.trained, num_layers=len(network.layers), count=parts.count
    )
    return Outcome(taken, planned, work, traffic)


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


def report(case: Case, outcome: Outcome, planned_s: float) -> str:
    peak, step_s = outcome.taken.peak_bytes, outcome.taken.step_s
    changes = ", ".join(f"{key} {value}" for key, value in case.changes.items())
    name = f"{case.network:6s} {case.shape:6s} {case.batch:3d} x {case.resolution:3d} px  {changes:50s}"
    memory = f"{peak / MIB:7.1f} MiB, planned {outcome.planned_bytes / MIB:7.1f}, ratio {outcome.planned_bytes / peak:.3f}"
    return f"{name}   {memory}   {step_s * 1e3:7.1f} ms, planned {planned_s * 1e3:7.1f}, ratio {planned_s / step_s:.2f}"


def calibrated(case: Case, steps: int) -> Speeds:
    """From the first case of a network, alone in this process."""
    first = rehearse(next(each for each in CASES if each.network == case.network), ALONE, steps)
    speeds = Speeds.calibrated(first.work, first.taken.step_s, products=products_a_second(torch.float32), updates=copied_a_second())
    precision = getattr(torch, case.changes.get("precision", "float32"))
    return dataclasses.replace(speeds, products=products_a_second(precision))


def alone(cases: Sequence[Case], steps: int) -> None:
    torch.set_num_threads(1)
    for case in cases:
        speeds, outcome = calibrated(case, steps), rehearse(case, ALONE, steps)
        print(report(case, outcome, speeds.step_s(outcome.work)), flush=True)


def in_two(case: Case, steps: int) -> None:
    torch.set_num_threads(1)
    with join_processes() as processes:
        # What libraries hold for good is there before anything is measured.
        rehearse(case._replace(shape="tiny", batch=4, resolution=64), processes, 0)
        outcome = rehearse(case, processes, steps)
        planned_s = calibrated(case, steps).step_s(outcome.work) + messages_s(outcome.traffic, processes)
        if processes.is_first:
            print(report(case, outcome, planned_s), flush=True)


def products_a_second(precision: torch.dtype) -> float:
    """Operations of a large matrix product; like the others, a second of processor time, which the machine's other work leaves alone."""
    left, right = (torch.ones(PRODUCT_SIDE, PRODUCT_SIDE, dtype=precision) for _ in range(2))
    return 2 * PRODUCT_SIDE**3 / fastest_s(lambda: torch.mm(left, right))


def copied_a_second() -> float:
    """Bytes that a copy reads and writes."""
    source, target = torch.ones(COPIED_NUMBERS), torch.empty(COPIED_NUMBERS)
    return 2 * source.nbytes / fastest_s(lambda: target.copy_(source))


def messages_s(traffic: Traffic, processes: Processes) -> float:
    """What a step's messages take, at the speeds of large ones: of copies' gradients, or of a split state's gathers and reductions."""
    numbers, part = torch.ones(COPIED_NUMBERS), torch.ones(COPIED_NUMBERS // processes.world_size)
    sent = numbers.nbytes * (processes.world_size - 1) / processes.world_size
    if traffic.gathers.node_bytes == 0:
        return traffic.reductions.node_bytes / (2 * sent) * fastest_s(lambda: distributed.all_reduce(numbers))
    gather_s = fastest_s(lambda: distributed.all_gather_into_tensor(numbers, part))
    reduce_s = fastest_s(lambda: distributed.reduce_scatter_tensor(part, numbers))
    return traffic.gathers.node_bytes / sent * gather_s + traffic.reductions.node_bytes / sent * reduce_s


def fastest_s(run: Callable[[], object]) -> float:
    return min(_seconds(run) for _ in range(REPEATS))


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        in_two(Case(*json.loads(arguments.case)), arguments.steps)
        return
    alone(CASES, arguments.steps)
    # Freed memory goes back at once, so that what is resident is what is alive.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for case in IN_TWO:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
        subprocess.run([*torchrun, "--steps", str(arguments.steps), "--case", json.dumps(case)], check=True, env=environment)


if __name__ == "__main__":
    main()
