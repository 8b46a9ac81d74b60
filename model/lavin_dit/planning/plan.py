"""What a recipe asks of a fleet of GPUs, before one is asked for: memory, operations, time, disk and network.

Imports torch only where it times the layers of this machine's CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from lavin_dit.config import Config
from lavin_dit.planning.dataset import DataPlan, latent_bytes, picture_bytes, plan_data
from lavin_dit.planning.dit_activations import FLOAT32
from lavin_dit.planning.flops import dit_recomputed, vae_recomputed
from lavin_dit.planning.layers import Network, dit_network, vae_network
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.memory import Memory, dit_memory, largest_micro_batch, vae_memory
from lavin_dit.planning.speeds import Speed, dit_speed, encoding_speed, vae_speed
from lavin_dit.planning.step_time import Fleet, StepTime, step_time
from lavin_dit.planning.traffic import Traffic, traffic_of
from lavin_dit.planning.vae_terms import HELD_COPIES
from lavin_dit.planning.workload import mean_dit_flops, mean_frames, mean_latent_pictures, mean_vae_flops
from lavin_dit.training_config import ExecutionConfig, TrainingSection

HOUR_S = 3600.0
SECTIONS = {"ST-VAE": "train_vae", "J-DiT": "train_dit"}


class _SpeedOf(Protocol):
    def __call__(self, parts: MicroBatches, *, backward: float) -> Speed: ...


@dataclass(frozen=True)
class JobPlan:
    """One of the two trainings. Units: bytes, operations, seconds; of one GPU where it says so, of the whole run else."""

    job: str
    num_parameters: int
    num_trained: int
    batch_size: int
    layout: str
    """How the state is laid out, and what is recomputed."""
    is_compiled: bool
    """Whether blocks go through torch.compile, which the plan does not model."""
    micro_batches: MicroBatches
    """Of one GPU."""
    memory: Memory
    """Of one GPU."""
    fits: bool
    largest_micro_batch: int | None
    step_flops: float
    """Forward and backward of the global batch, without what is made again; of a mean step."""
    traffic: Traffic
    """Of one GPU."""
    speed: Speed
    time: StepTime
    mfu: float
    """What telemetry would show: useful operations, of the peak, over the whole step."""
    steps: int
    checkpoint_bytes: int
    checkpoints_kept: int
    read_bytes_a_second: float
    """From the data set, by all GPUs together."""

    @property
    def duration_s(self) -> float:
        return self.steps * self.time.step_s


@dataclass(frozen=True)
class Plan:
    """Everything."""

    fleet: Fleet
    data: DataPlan
    vae: JobPlan
    dit: JobPlan

    @property
    def fits(self) -> bool:
        return self.vae.fits and self.dit.fits

    @property
    def duration_s(self) -> float:
        return self.vae.duration_s + self.data.encode_s + self.dit.duration_s

    @property
    def gpu_hours(self) -> float:
        return self.fleet.layout.num_gpus * self.duration_s / HOUR_S


def plan(config: Config, fleet: Fleet) -> Plan:
    """The plan of a whole params file.

    Raises: InputError where the GPUs cannot share a batch.
    """
    vae = plan_vae(config, fleet)
    data = plan_data(config, fleet.layout.num_gpus * encoding_speed(fleet, vae.speed))
    return Plan(fleet, data, vae, plan_dit(config, fleet))


def plan_dit(config: Config, fleet: Fleet) -> JobPlan:
    """Training the J-DiT."""
    section, resolution, clip_frames = config.train_dit, config.prepare.resolution, config.prepare.clip_frames
    return _plan_job(
        "J-DiT",
        section,
        fleet,
        lambda parts: dit_job_memory(config, fleet.layout, parts, on_gpu=fleet.device.is_gpu),
        partial(dit_speed, config, fleet),
        network=dit_network(section, samples=1, resolution=resolution, frames=1, on_gpu=fleet.device.is_gpu),
        num_layers=2 * section.shape.depth,
        sample_flops=mean_dit_flops(section, resolution, clip_frames),
        recomputed=dit_recomputed(section.execution.activation_checkpointing),
        sample_bytes=mean_latent_pictures(section, clip_frames) * latent_bytes(resolution),
    )


def plan_vae(config: Config, fleet: Fleet) -> JobPlan:
    """Training the ST-VAE."""
    section, resolution = config.train_vae, config.prepare.resolution
    blocks = 4 * (section.shape.encoder_blocks + section.shape.decoder_blocks) + 2 * section.shape.middle_blocks
    return _plan_job(
        "ST-VAE",
        section,
        fleet,
        lambda parts: vae_job_memory(config, fleet.layout, parts, on_gpu=fleet.device.is_gpu),
        partial(vae_speed, config, fleet),
        network=vae_network(section, samples=1, resolution=resolution, frames=1, on_gpu=fleet.device.is_gpu),
        num_layers=blocks,
        sample_flops=mean_vae_flops(section, resolution),
        recomputed=vae_recomputed(section.shape, section.execution.activation_checkpointing),
        sample_bytes=mean_frames(section) * picture_bytes(resolution, config.prepare.difficulty),
    )


def dit_job_memory(config: Config, layout: Layout, parts: MicroBatches, *, on_gpu: bool) -> Memory:
    """What the J-DiT's training takes of a process, in its largest steps."""
    prepare = config.prepare
    return dit_memory(
        config.train_dit,
        layout,
        samples=parts.samples,
        count=parts.count,
        resolution=prepare.resolution,
        clip_frames=prepare.clip_frames,
        on_gpu=on_gpu,
    )


def vae_job_memory(config: Config, layout: Layout, parts: MicroBatches, *, on_gpu: bool) -> Memory:
    """What the ST-VAE's training takes of a process, in its largest steps."""
    resolution = config.prepare.resolution
    return vae_memory(config.train_vae, layout, samples=parts.samples, count=parts.count, resolution=resolution, on_gpu=on_gpu)


def _plan_job(
    job: str,
    section: TrainingSection,
    fleet: Fleet,
    memory_of: Callable[[MicroBatches], Memory],
    speed_of: _SpeedOf,
    *,
    network: Network,
    num_layers: int,
    sample_flops: float,
    recomputed: float,
    sample_bytes: float,
) -> JobPlan:
    share = fleet.layout.share(section.batch_size, f"{SECTIONS[job]}.batch_size")
    micro_batches = MicroBatches.of_share(share, section.execution.micro_batch)
    memory = memory_of(micro_batches)
    traffic = traffic_of(
        section.execution, fleet.layout, weights=network.weights, trained=network.trained, num_layers=num_layers, count=micro_batches.count
    )
    speed = speed_of(micro_batches, backward=network.backward + recomputed)
    time = step_time(
        fleet.device,
        traffic,
        speed=speed.flops,
        forward_flops=share * sample_flops,
        backward=network.backward + recomputed,
        count=micro_batches.count,
        num_layers=num_layers,
        # What is trained beside the network is so on every GPU.
        updated=network.trained / fleet.layout.shards(section.execution) + network.judges.gradients / FLOAT32,
    )
    flops = (1 + network.backward) * sample_flops * section.batch_size
    kept = section.checkpoints.keep_last + (1 if section.checkpoints.keep_best else 0)
    every = section.checkpoints.keep_every_steps
    return JobPlan(
        job=job,
        num_parameters=network.weights,
        num_trained=network.trained,
        batch_size=section.batch_size,
        layout=_layout(section.execution, fleet),
        is_compiled=section.execution.compile,
        micro_batches=micro_batches,
        memory=memory,
        fits=memory.fits(fleet.device.memory_gib),
        largest_micro_batch=largest_micro_batch(memory_of, share, fleet.device.memory_gib),
        step_flops=flops,
        traffic=traffic,
        speed=speed,
        time=time,
        mfu=flops / fleet.layout.num_gpus / time.step_s / fleet.device.peak_flops(section.execution.precision),
        steps=section.steps,
        checkpoint_bytes=FLOAT32 * (network.weights + 3 * network.trained) + HELD_COPIES * network.judges.gradients,
        checkpoints_kept=kept + (section.steps // every if every else 0),
        read_bytes_a_second=section.batch_size * sample_bytes / time.step_s,
    )


def _layout(execution: ExecutionConfig, fleet: Fleet) -> str:
    copies = "one GPU" if fleet.layout.num_gpus == 1 else "copies"
    sharding = {"none": copies, "full": "split", "hybrid": "split in nodes"}[execution.sharding]
    recomputed = {"none": "", "selective": ", recomputes all but products", "full": ", recomputes blocks"}
    return sharding + recomputed[execution.activation_checkpointing]
