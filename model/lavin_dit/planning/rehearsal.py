"""Steps of training on random data, measured: what plans are checked against, on CPUs, by benchmarks/plan.py and the tests."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lavin_dit.data.episodes import EpisodeSampler
from lavin_dit.data.latents import LatentStore
from lavin_dit.data.shards import Member, Pair
from lavin_dit.dit.j_dit import JDit
from lavin_dit.planning.flops import TRAINING_FACTOR, vae_flops
from lavin_dit.presets import LATENT_CHANNELS, SPATIAL_FACTOR, TEMPORAL_FACTOR
from lavin_dit.training.average import MovingAverage
from lavin_dit.training.dit_objective import DitObjective
from lavin_dit.training.feed import micro_ranges
from lavin_dit.training.objective import Cost, Losses, Objective
from lavin_dit.training.optimizing import Optimizer
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut
from lavin_dit.training_config import TrainDitConfig, TrainingSection, TrainVaeConfig
from lavin_dit.vae.losses import vae_losses
from lavin_dit.vae.st_vae import Moments, STVae

TASK = "rehearsal"
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
    """Of processor time, in the fastest step: on one thread, and a quiet machine, the clock's."""


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
    # The allocator's record misses what other threads give back, and collectives have some.
    peak = allocated_peak(begin) if processes.world_size == 1 else resident_peak(begin)
    return Rehearsed(peak, min((_time(steps_of[0]) for _ in range(steps)), default=0.0))


def _step_of(objective: Objective[Any], config: TrainingSection, processes: Processes, data_step: int) -> Callable[[], None]:
    laid_out = LaidOut(objective, config.execution, processes)
    optimizer, average = Optimizer(objective, config.optimizer), MovingAverage(objective.network, config.optimizer.ema_decay)
    ranges = micro_ranges(processes, config.batch_size, config.execution.micro_batch)

    def load() -> list[Any]:
        return [objective.batch(data_step, samples) for samples in ranges]

    def step() -> None:
        batches, _following = load(), load()
        for index, batch in enumerate(batches):
            with laid_out.accumulating(is_last=index + 1 == len(batches)):
                laid_out.losses(batch).total.backward()  # type: ignore[no-untyped-call]
        laid_out.meet()
        optimizer.clip()
        optimizer.step()
        average.update()
        optimizer.forget_gradients()

    return step


def _time(step: Callable[[], None]) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started


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


def rehearse_dit(config: TrainDitConfig, processes: Processes, *, resolution: int, steps: int = 0) -> Rehearsed:
    """The J-DiT on random latents, in steps whose episodes all show `max_pairs` pairs and keep their prompt."""
    side = resolution // SPATIAL_FACTOR
    members = [Member("", 0, 0, str(row)) for row in range(2 * (config.max_pairs + 1))]
    pairs = [Pair(TASK, TASK, TASK, TASK, *((member,) for member in members[row : row + 2])) for row in range(0, len(members), 2)]
    latents = torch.randn(len(members), LATENT_CHANNELS, side, side, generator=torch.Generator().manual_seed(config.seed))
    sampler = EpisodeSampler({TASK: pairs}, {}, config.max_pairs, 0.0, (LATENT_CHANNELS, 1, side, side), config.seed)
    store = LatentStore({member.sha256: row for row, member in enumerate(members)}, latents)
    longest = next(step for step in count() if sampler.num_pairs(step) == config.max_pairs)

    def build() -> DitObjective:
        network = JDit(config.shape)
        network.initialise(torch.Generator().manual_seed(config.seed))
        return DitObjective(network, store, sampler, config, processes.device)

    return rehearse(build, config, processes, steps=steps, data_step=longest)


def rehearse_vae(config: TrainVaeConfig, processes: Processes, *, frames: int, resolution: int, steps: int = 0) -> Rehearsed:
    """The ST-VAE on random clips."""
    return rehearse(lambda: Reconstruction(config, frames=frames, resolution=resolution), config, processes, steps=steps, data_step=0)


@dataclass(frozen=True)
class RandomClips:
    """Pixels and the noise of their posterior draws."""

    pixels: Tensor
    noise: Tensor


class Reconstruction(Objective[RandomClips]):
    """The ST-VAE on random clips: its reconstruction losses alone."""

    network: STVae

    def __init__(self, config: TrainVaeConfig, *, frames: int, resolution: int) -> None:
        super().__init__()
        self.network = STVae(config.shape)
        self.network.initialise(torch.Generator().manual_seed(config.seed))
        self._config, self._frames, self._resolution = config, frames, resolution

    def batch(self, step: int, samples: range) -> RandomClips:
        generator = torch.Generator().manual_seed(step)
        pixels = torch.rand(len(samples), 3, self._frames, self._resolution, self._resolution, generator=generator)
        side, frames = self._resolution // SPATIAL_FACTOR, 1 + (self._frames - 1) // TEMPORAL_FACTOR
        return RandomClips(2 * pixels - 1, torch.randn(len(samples), LATENT_CHANNELS, frames, side, side, generator=generator))

    def forward(self, batch: RandomClips) -> Losses:
        reconstruction, mean, logvar = self.network(batch.pixels, batch.noise)
        weights = {"absolute_weight": self._config.absolute_weight, "kl_weight": self._config.kl_weight}
        return Losses(vae_losses(reconstruction, batch.pixels, Moments(mean, logvar), **weights)["loss"])

    def cost(self, batch: RandomClips) -> Cost:
        frames, height, width = batch.pixels.shape[2:]
        flops = vae_flops(self.network.shape, samples=len(batch.pixels), frames=frames, height=height, width=width)
        return Cost(batch.noise[:, 0].numel(), TRAINING_FACTOR * sum(flops))
