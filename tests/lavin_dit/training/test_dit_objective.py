import numpy as np
import pytest
import torch
from torch import Tensor

from lavin_dit.data.episodes import EpisodeSampler, EpisodeShape, EpisodeWeights
from lavin_dit.data.shards.shard_set import Member, Pair
from lavin_dit.dit.j_dit import JDit
from lavin_dit.inference import assemble_prompt, sample_answer
from lavin_dit.presets import DitShape
from lavin_dit.sampling import starting_noise
from lavin_dit.training.dit_objective import DitObjective
from lavin_dit.training.fit import fit
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import CheckpointConfig, ExecutionConfig, GuardConfig, OptimizerConfig, TrainDitConfig

CPU = torch.device("cpu")
OPTIMIZER = OptimizerConfig(
    learning_rate=6e-3, final_learning_rate=1e-4, warmup_steps=20, betas=(0.9, 0.95), weight_decay=0.0, max_grad_norm=1.0, ema_decay=0.95
)
DIT_CONFIG = TrainDitConfig(
    seed=0,
    steps=300,
    batch_size=32,
    initial_weights=None,
    frozen=(),
    optimizer=OPTIMIZER,
    loading=None,
    execution=ExecutionConfig(
        micro_batch=None, precision="float32", sharding="none", cpu_offload=False, activation_checkpointing="none", compile=False
    ),
    checkpoints=CheckpointConfig(every_steps=1000, keep_last=1, keep_every_steps=None, keep_best=False, location=None),
    guard=GuardConfig(spike_factor=10.0, max_skips_in_a_row=3, max_rollbacks=0, stall_timeout_s=60.0),
    log_every_steps=20,
    shape=DitShape(depth=2, dim=96, num_heads=4, kv_group=2),
    max_pairs=1,
    prompt_drop_probability=0.0,
    time_shift=1.0,
    absolute_weight=0.1,
    task_weights={},
    source_weights={},
    clips=None,
    lora=None,
)
NUM_PAIRS, SIDE = 4, 2
Store = dict[tuple[Member, ...], Tensor]
RULES = {"negate": lambda z: -z, "reverse": lambda z: z.flip(0)}


def frames_of(name: str, number: int, num_frames: int) -> tuple[Member, ...]:
    return tuple(Member("none", 0, 0, f"{name}-{number}-{frame}-of-{num_frames}") for frame in range(num_frames))


@pytest.fixture(scope="module")
def store() -> Store:
    """Latents that are one vector of 16 values everywhere, and their answers under each rule."""
    return {**make_store(1), **make_store(2)}


def make_store(num_frames: int) -> Store:
    random = torch.Generator().manual_seed(num_frames)
    latents: Store = {}
    for number in range(NUM_PAIRS):
        z = torch.randn(16, num_frames, generator=random)
        for name, values in {"input": z, **{task: rule(z) for task, rule in RULES.items()}}.items():
            latents[frames_of(name, number, num_frames)] = values.view(16, num_frames, 1, 1).expand(16, num_frames, SIDE, SIDE)
    return latents


@pytest.fixture(scope="module")
def sampler() -> EpisodeSampler:
    return make_sampler()


def make_sampler(*, prompt_drop_probability: float = 0.0, clip_share: float = 0.0) -> EpisodeSampler:
    groups = {(task, "scenes"): make_pairs(task, 1) for task in RULES}
    if clip_share:
        groups |= {(f"{task}_of_clips", "scenes"): make_pairs(task, 2) for task in RULES}
    shape, shape_of_clips = (EpisodeShape(DIT_CONFIG.max_pairs, (16, num_frames, SIDE, SIDE)) for num_frames in (1, 2))
    return EpisodeSampler(
        groups,
        {"image": shape, "clip": shape_of_clips},
        EpisodeWeights(clip_share=clip_share),
        prompt_drop_probability=prompt_drop_probability,
        seed=0,
    )


def make_pairs(task: str, num_frames: int) -> list[Pair]:
    ends = [(frames_of("input", number, num_frames), frames_of(task, number, num_frames)) for number in range(NUM_PAIRS)]
    return [Pair(f"{task}-{number}", task, str(number), "scenes", *pair) for number, pair in enumerate(ends)]


def make_objective(store: Store, sampler: EpisodeSampler, config: TrainDitConfig = DIT_CONFIG) -> DitObjective:
    network = JDit(config.shape)
    network.initialise(torch.Generator().manual_seed(0))
    return DitObjective(network, store, sampler, config, CPU)


@pytest.fixture(scope="module")
def learnt(store: Store, sampler: EpisodeSampler, tmp_path_factory: pytest.TempPathFactory) -> JDit:
    objective = make_objective(store, sampler)
    fitted = fit("dit", objective, DIT_CONFIG, Processes(0, 1, CPU), tmp_path_factory.mktemp("learnt"))
    network = JDit(DIT_CONFIG.shape).requires_grad_(False)
    network.load_state_dict(fitted.weights, strict=True)
    return network


@pytest.mark.parametrize("task", RULES)
def test_samples_follow_the_task_that_the_context_shows(task: str, learnt: JDit, store: Store, sampler: EpisodeSampler) -> None:
    inputs, targets = (torch.stack([store[getattr(pair, side)] for pair in sampler.groups[task, "scenes"]]) for side in ("input", "target"))
    shown_inputs, shown_targets = inputs.roll(1, dims=0), targets.roll(1, dims=0)
    prompt = assemble_prompt(shown_inputs[:, None], shown_targets[:, None], inputs)
    noise = torch.from_numpy(np.stack([starting_noise((16, 1, SIDE, SIDE), seed=0, index=index) for index in range(NUM_PAIRS)]))
    answers = sample_answer(learnt, prompt, noise=noise, num_points=10, guidance_scale=1.0)

    def error(guess: Tensor) -> float:
        return float((guess - targets).square().mean())

    assert error(answers) < 0.1 * min(error(inputs), error(shown_targets))


def test_a_step_shows_pictures_or_clips_and_learns_from_both(store: Store) -> None:
    objective = make_objective(store, make_sampler(prompt_drop_probability=0.5, clip_share=0.5))
    batches = [objective.batch(step, range(6)) for step in range(12)]
    assert {batch.answer.shape[2] for batch in batches} == {1, 2}
    for batch in batches:
        frames = batch.answer.shape[2]
        assert batch.answer.shape == batch.noise.shape == (6, 16, frames, SIDE, SIDE)
        assert batch.prompt.shape == (6, 16, 3 * frames, SIDE, SIDE)
        assert objective(batch).total.isfinite()
        kept, dropped = int((~batch.is_dropped).sum()), int(batch.is_dropped.sum())
        assert objective.cost(batch).tokens == kept * 4 * frames + dropped * (1 + 2 * frames)


def test_the_cost_is_less_where_weights_are_frozen(store: Store, sampler: EpisodeSampler) -> None:
    whole, frozen = (make_objective(store, sampler, DIT_CONFIG.model_copy(update={"frozen": names})) for names in ((), ("blocks",)))
    batch = whole.batch(0, range(2))
    # What is passed through has one product backwards, what is learnt two.
    assert 0.6 < frozen.cost(batch).flops / whole.cost(batch).flops < 0.85


def test_the_shares_of_two_processes_are_the_batch_of_one(store: Store, sampler: EpisodeSampler) -> None:
    objective = make_objective(store, sampler)
    whole, first, second = (objective.batch(7, samples) for samples in (range(8), range(4), range(4, 8)))
    for field in ("answer", "noise", "prompt", "time", "is_dropped"):
        assert torch.equal(getattr(whole, field), torch.cat([getattr(first, field), getattr(second, field)]))


def test_a_batch_does_not_depend_on_the_batches_before_it(store: Store, sampler: EpisodeSampler) -> None:
    objective = make_objective(store, sampler)
    fresh = make_objective(store, sampler).batch(9, range(4))
    for step in range(3):
        objective.batch(step, range(4))
    assert torch.equal(objective.batch(9, range(4)).noise, fresh.noise)


def test_the_loss_of_a_batch_is_the_mean_over_its_samples_with_and_without_a_prompt(store: Store) -> None:
    objective = make_objective(store, make_sampler(prompt_drop_probability=0.5))
    torch.nn.init.normal_(objective.network.final_layer.linear.weight, generator=torch.Generator().manual_seed(0))
    assert 0 < int(objective.batch(0, range(6)).is_dropped.sum()) < 6
    alone = [objective(objective.batch(0, range(sample, sample + 1))).total.detach() for sample in range(6)]
    torch.testing.assert_close(objective(objective.batch(0, range(6))).total.detach(), torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


def test_a_fresh_network_is_as_wrong_as_answering_zero(store: Store, sampler: EpisodeSampler) -> None:
    objective = make_objective(store, sampler)
    batch = objective.batch(0, range(8))
    torch.testing.assert_close(objective(batch).parts["squared"], (batch.answer - batch.noise).square().mean())
