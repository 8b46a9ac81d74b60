"""The sections of params.yaml that train: what is learnt, how it is computed, and what happens when something breaks."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from lavin_dit.presets import DIT_PRESETS, TEMPORAL_FACTOR, VAE_PRESETS, DitShape, VaeShape
from lavin_dit.section import (
    Fraction,
    Name,
    NotNegative,
    NotNegativeReal,
    Positive,
    PositiveReal,
    Section,
    Seed,
    WeightsFile,
    preset_of,
)

SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)?$")]


class OptimizerConfig(Section):
    """AdamW with linear warm-up, cosine decay, global-norm clipping and an exponential moving average."""

    learning_rate: PositiveReal
    final_learning_rate: NotNegativeReal
    """Where the cosine decay ends."""
    warmup_steps: NotNegative
    betas: tuple[Fraction, Fraction]
    weight_decay: NotNegativeReal
    max_grad_norm: PositiveReal
    ema_decay: Fraction


class LoadingConfig(Section):
    """Where the training shards are read from in place of the folder of the step before."""

    location: Annotated[str, Field(pattern=r"^s3://[^/]+")]
    """The same set in S3 storage, such as s3://bucket/prefix."""
    cache_gib: PositiveReal
    """Room for shards on each machine: for three windows of pictures, and where there are clips for three of theirs."""
    window_shards: Positive
    """Shards that are read at a time, and within which samples are shuffled."""


class ExecutionConfig(Section):
    """How the processes compute: nothing here changes what is learnt beyond rounding."""

    micro_batch: Positive | None
    """Samples that a process takes through the network at once; gradients are summed over its share. Null: all of its share."""
    precision: Literal["float32", "bfloat16"]
    """Of the network's arithmetic; weights, optimizer and average stay in float32."""
    sharding: Literal["none", "full", "hybrid"]
    """none: every process holds the whole state (DDP). full: it is split over all (FSDP2). hybrid: split within a node, copied across."""
    cpu_offload: bool
    """Keeps the split state in the host's memory; needs sharding."""
    activation_checkpointing: Literal["none", "selective", "full"]
    """Recompute nothing, all but the matrix products, or whole blocks in the backward pass."""
    compile: bool
    """torch.compile, a block at a time."""

    @model_validator(mode="after")
    def _offloads_what_is_split(self) -> Self:
        if self.cpu_offload and self.sharding == "none":
            raise ValueError("cpu_offload is true: needs sharding full or hybrid")
        return self


class CheckpointConfig(Section):
    """When the state of a run is written down, and which of these checkpoints stay."""

    every_steps: Positive
    keep_last: Positive
    keep_every_steps: Positive | None
    """Checkpoints of these steps stay for good; null for none."""
    keep_best: bool
    """Whether the one with the lowest loss since the checkpoint before stays."""
    location: Annotated[str, Field(min_length=1)] | None
    """A folder, or an s3:// address, that outlives the step's own folder; null for that folder."""


class GuardConfig(Section):
    """What is done about a loss that explodes, and about a process that hangs."""

    spike_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """A loss above its running mean by more than this factor is not learnt from, like one that is not finite."""
    max_skips_in_a_row: Positive
    """Steps skipped in a row after which training goes back to a checkpoint, and past the data that did it."""
    max_rollbacks: NotNegative
    """How often, before the run is given up."""
    stall_timeout_s: PositiveReal
    """Longest time that a process may make no progress."""


class TrainingSection(Section):
    """What every training step has."""

    seed: Seed
    steps: Positive
    batch_size: Positive
    """Global batch, over all processes."""
    initial_weights: WeightsFile | None
    """Where training starts from in place of fresh weights: fine-tuning."""
    frozen: tuple[str, ...]
    """Weights that stay as they are: names, or beginnings of names that end at a dot, such as `encoder`."""
    optimizer: OptimizerConfig
    loading: LoadingConfig | None
    """Null: that folder is read in place, in an order over all of it."""
    execution: ExecutionConfig
    checkpoints: CheckpointConfig
    guard: GuardConfig
    log_every_steps: Positive

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(f"optimizer.warmup_steps is {self.optimizer.warmup_steps}: must be below steps ({self.steps})")
        return self


class PerceptualConfig(Section):
    """The perceptual term of the ST-VAE's loss."""

    weight: NotNegativeReal
    features: WeightsFile | None
    """VGG16 in torchvision's layout, for LPIPS-style features; null: multi-scale structural similarity in their place."""


class AdversarialConfig(Section):
    """The adversarial term: a 3D patch discriminator with a hinge loss."""

    weight: NotNegativeReal
    """Share of the gradient at the pixels, relative to the reconstruction's."""
    first_step: NotNegative
    """When it starts to count."""
    width: Positive
    """Channels of the discriminator's first layer."""
    num_layers: Positive
    """Each halves the picture."""
    learning_rate: PositiveReal

    def check_side(self, side: int) -> None:
        """Raises: ValueError where a picture of a side cannot be halved so often."""
        if side >> self.num_layers == 0:
            largest = side.bit_length() - 1
            raise ValueError(f"adversarial.num_layers is {self.num_layers}: must be at most {largest}, each halves {side} pixels")


class ClipsConfig(Section):
    """The second stage: images and clips jointly, going on from the weights of the first."""

    first_step: NotNegative
    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the steps that see clips."""
    frames: Positive
    """1 + 4k."""

    @field_validator("frames")
    @classmethod
    def _clip_compresses(cls, value: int) -> int:
        if value == 1 or (value - 1) % TEMPORAL_FACTOR:
            raise ValueError("must be 1 + 4k with k above 0 (5, 9, 13 ...), the lengths that the ST-VAE compresses")
        return value


class TrainVaeConfig(TrainingSection):
    """The ST-VAE, its loss, and what the report shows of it."""

    shape: Annotated[VaeShape, preset_of(VAE_PRESETS)]
    absolute_weight: NotNegativeReal
    """Weight of the mean absolute error beside the mean squared error."""
    kl_weight: NotNegativeReal
    perceptual: PerceptualConfig
    adversarial: AdversarialConfig | None
    clips: ClipsConfig | None
    num_reconstructions: NotNegative

    @model_validator(mode="after")
    def _stages_begin(self) -> Self:
        for name, stage in (("adversarial", self.adversarial), ("clips", self.clips)):
            if stage and stage.first_step >= self.steps:
                raise ValueError(f"{name}.first_step is {stage.first_step}: must be below steps ({self.steps})")
        return self


class LoraConfig(Section):
    """Low-rank updates of the J-DiT's linears; the weights themselves stay."""

    rank: Positive
    alpha: PositiveReal


class ClipEpisodesConfig(Section):
    """Steps whose episodes are of clips; their length is prepare.clip_frames."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the steps."""
    max_pairs: Positive
    """Context pairs of clips are drawn from 1 to this."""


class TrainDitConfig(TrainingSection):
    """The J-DiT and its flow-matching loss."""

    shape: Annotated[DitShape, preset_of(DIT_PRESETS)]
    max_pairs: Positive
    """Context pairs of an episode are drawn from 1 to this."""
    prompt_drop_probability: Fraction
    time_shift: PositiveReal
    absolute_weight: NotNegativeReal
    task_weights: dict[Name, NotNegativeReal]
    """Relative chance of each task; 1 where a task is not named."""
    source_weights: dict[SourceName, NotNegativeReal]
    """Relative chance of each source within a task, by `source` or `task/source`; the number of its pairs where it is not named."""
    clips: ClipEpisodesConfig | None
    """Null: images alone."""
    lora: LoraConfig | None
    """Needs initial_weights."""

    @model_validator(mode="after")
    def _lora_has_weights(self) -> Self:
        if self.lora and not self.initial_weights:
            raise ValueError("lora is set: needs initial_weights, the weights that it adapts")
        return self
