"""Steps of training on random data, measured: what plans are checked against by the tests (on CPUs) and the benchmarks."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from lavin_dit.data.episodes import EpisodeSampler, EpisodeShape, EpisodeWeights
from lavin_dit.data.shards.shard_set import SPLITS, Member, Pair, ShardSet, write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair
from lavin_dit.dit.j_dit import JDit
from lavin_dit.planning.workload import most_pairs
from lavin_dit.presets import PIXEL_CHANNELS, latent_shape
from lavin_dit.training.average import MovingAverage
from lavin_dit.training.dit_objective import DitObjective
from lavin_dit.training.feed import micro_ranges
from lavin_dit.training.finetuning import adapt, freeze
from lavin_dit.training.objective import Objective
from lavin_dit.training.optimizing import Optimizer
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut
from lavin_dit.training.vae_objective import Pictures, VaeObjective
from lavin_dit.training_config import TrainDitConfig, TrainingSection, TrainVaeConfig
from lavin_dit.vae.st_vae import STVae

TASK = "rehearsal"
SHARD_BYTES = 2**20
MEMORY_EVENT = "[memory]"
RESET_PEAK = "5"
"""What the kernel takes as the order to forget a process's peak."""
WATCHED_STEPS, WATCHED_STEPS_OF_SEVERAL = 1, 3
"""DDP lays its buckets anew in the second step, so that the third is like all that follow."""


@dataclass(frozen=True)
class Rehearsed:
    """What steps took in this process. Units: bytes, seconds."""

    peak_bytes: int
    """Of every live tensor, and of what operations allocate for themselves; from the network's creation on."""
    step_s: float
    """Of the fastest step: by the clock on a GPU; of processor time on CPUs, on one thread and a quiet machine the clock's."""


def rehearse(
    build: Callable[[], Objective[Any]], config: TrainingSection, processes: Processes, *, steps: int, data_step: int
) -> Rehearsed:
    """Takes steps as `fit` does, without its checkpoints and telemetry: a few with an eye on memory, then `steps` with an eye on time."""
    steps_of: list[Callable[[], None]] = []

    def begin() -> None:
        steps_of.append(_step_of(build(), config, processes, data_step))
        for _ in range(WATCHED_STEPS if processes.world_size == 1 else WATCHED_STEPS_OF_SEVERAL):
            steps_of[0]()

    # What was left before, and is cleared away meanwhile, would count as given back by these steps.
    gc.collect()
    peak = _peak_of(processes)(begin)
    return Rehearsed(peak, min((_time(steps_of[0], processes.device) for _ in range(steps)), default=0.0))


def _peak_of(processes: Processes) -> Callable[[Callable[[], object]], int]:
    if processes.device.type == "cuda":
        return gpu_peak
    # The allocator's record misses what other threads give back, and collectives have some.
    return allocated_peak if processes.world_size == 1 else resident_peak


def _step_of(objective: Objective[Any], config: TrainingSection, processes: Processes, data_step: int) -> Callable[[], None]:
    laid_out = LaidOut(objective, config.execution, processes)
    optimizer, average = Optimizer(objective, config.optimizer), MovingAverage(objective.network, config.optimizer.ema_decay)
    ranges = micro_ranges(processes, config.batch_size, config.execution.micro_batch)

    # The following batches too, which are loaded beside a step.
    batches, _following = ([objective.batch(data_step, samples) for samples in ranges] for _ in range(2))

    def step() -> None:
        for index, batch in enumerate(batches):
            with laid_out.accumulating(is_last=index + 1 == len(batches)):
                laid_out.losses(batch).total.backward()  # type: ignore[no-untyped-call]
        laid_out.meet()
        optimizer.clip()
        optimizer.step()
        average.update()
        optimizer.forget_gradients()

    return step


def _time(step: Callable[[], None], device: torch.device) -> float:
    clock = _gpu_clock if device.type == "cuda" else time.process_time
    started = clock()
    step()
    return clock() - started


def _gpu_clock() -> float:
    """The time at which the GPU has done what it was asked for."""
    torch.cuda.synchronize()
    return time.perf_counter()


def gpu_peak(run: Callable[[], object]) -> int:
    """The most bytes that the GPU's allocator had given out at once, beyond what was there before."""
    # What libraries hold for good, in each of the two threads, is there before anything is measured.
    product = torch.ones(8, 8, device="cuda", requires_grad=True)
    torch.mm(product, product).sum().backward()  # type: ignore[no-untyped-call]
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def allocated_peak(run: Callable[[], object]) -> int:
    """The most bytes that the CPU's allocator had given out at once, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == MEMORY_EVENT]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def resident_peak(run: Callable[[], object]) -> int:
    """The most bytes that this process had in memory at once, beyond what it had before."""
    Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def rehearse_dit(config: TrainDitConfig, processes: Processes, *, resolution: int, frames: int = 1, steps: int = 0) -> Rehearsed:
    """The J-DiT on random latents of pictures, or of clips, in steps whose episodes all show the most pairs and keep their prompt."""
    max_pairs = most_pairs(config, frames)
    shape = latent_shape(frames, resolution, resolution)
    ends = [tuple(Member("", 0, 0, f"{number}-{frame}") for frame in range(frames)) for number in range(2 * (max_pairs + 1))]
    pairs = [Pair(TASK, TASK, TASK, TASK, *ends[number : number + 2]) for number in range(0, len(ends), 2)]
    latents = torch.randn(len(ends), *shape, generator=torch.Generator().manual_seed(config.seed))
    sampler = EpisodeSampler(
        {(TASK, TASK): pairs},
        {"clip" if frames > 1 else "image": EpisodeShape(max_pairs, shape)},
        EpisodeWeights(clip_share=float(frames > 1)),
        prompt_drop_probability=0.0,
        seed=config.seed,
    )
    longest = next(step for step in count() if sampler.num_pairs(step) == max_pairs)

    def build() -> DitObjective:
        return DitObjective(_dit(config), dict(zip(ends, latents, strict=True)), sampler, config, processes.device)

    return rehearse(build, config, processes, steps=steps, data_step=longest)


def _dit(config: TrainDitConfig) -> JDit:
    network, generator = JDit(config.shape), torch.Generator().manual_seed(config.seed)
    network.initialise(generator)
    freeze(network, config.frozen, key="train_dit.frozen")
    if config.lora:
        adapt(network, config.lora, generator)
    return network


def rehearse_vae(config: TrainVaeConfig, processes: Processes, *, frames: int, resolution: int, steps: int = 0) -> Rehearsed:
    """The ST-VAE and its judges on random clips, in steps that all of its loss's terms count in."""
    first_step = config.adversarial.first_step if config.adversarial else 0
    with one_picture(resolution) as shards:

        def build() -> RehearsedVae:
            return RehearsedVae(config, shards, processes.device, frames=frames)

        return rehearse(build, config, processes, steps=steps, data_step=first_step)


@contextmanager
def one_picture(resolution: int) -> Iterator[ShardSet]:
    """A data set that is there, where what is learnt from comes from elsewhere."""
    black = np.zeros((resolution, resolution, PIXEL_CHANNELS), np.uint8)
    with tempfile.TemporaryDirectory(prefix="lavin-") as scratch:
        for split in SPLITS:
            with ShardWriter(Path(scratch), split, SHARD_BYTES) as writer:
                writer.add(TASK, {TASK: ImagePair(black, black)})
        write_manifest(Path(scratch), resolution=resolution, clip_frames=1)
        with ShardSet(Path(scratch), "train") as shards:
            yield shards


class RehearsedVae(VaeObjective):
    """The ST-VAE's own objective, on random clips in place of a data set's."""

    def __init__(self, config: TrainVaeConfig, shards: ShardSet, device: torch.device, *, frames: int) -> None:
        network = STVae(config.shape)
        network.initialise(torch.Generator().manual_seed(config.seed))
        freeze(network, config.frozen, key="train_vae.frozen")
        super().__init__(network, shards, config.model_copy(update={"clips": None}), device)
        self._pixels = (PIXEL_CHANNELS, frames, shards.resolution, shards.resolution)
        self._latents = latent_shape(frames, shards.resolution, shards.resolution)

    def batch(self, step: int, samples: range) -> Pictures:
        generator = torch.Generator().manual_seed(step)
        pixels = torch.rand(len(samples), *self._pixels, generator=generator).mul_(2).sub_(1)
        noise = torch.randn(len(samples), *self._latents, generator=generator)
        return Pictures(pixels.to(self._device), noise.to(self._device), step)
