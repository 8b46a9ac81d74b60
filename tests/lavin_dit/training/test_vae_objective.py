import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lavin_dit.config import load_config
from lavin_dit.data.reading.order import sample_at
from lavin_dit.data.shards.distinct import unique_members
from lavin_dit.data.shards.shard_set import SPLITS, ShardSet, write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.world.clips import render_clip
from lavin_dit.errors import InputError
from lavin_dit.inference import to_model
from lavin_dit.planning.flops import TRAINING_FACTOR, vae_flops
from lavin_dit.planning.layers import vae_passes
from lavin_dit.planning.vae_layers import Volume
from lavin_dit.planning.vae_terms import discriminator_flops
from lavin_dit.training.fit import fit
from lavin_dit.training.processes import Processes
from lavin_dit.training.vae_objective import VaeObjective
from lavin_dit.training_config import TrainVaeConfig
from lavin_dit.vae.adversarial import per_sample
from lavin_dit.vae.balance import ADVERSARIAL_PULL, RECONSTRUCTION_PULL
from lavin_dit.vae.losses import vae_losses
from lavin_dit.vae.st_vae import Moments, STVae
from lavin_dit.vae.structure import StructuralDissimilarity
from tests.clip_shards import CLIP_FRAMES, FULL_RECIPE, NUM_TRAIN_CLIPS, write_clip_shards

TINY = Path(__file__).parents[2] / "tiny.yaml"
CPU = torch.device("cpu")
QUICK = (
    "train_vae.steps=30",
    "train_vae.batch_size=6",
    "train_vae.log_every_steps=5",
    "train_vae.optimizer.learning_rate=6.0e-3",
    "train_vae.optimizer.warmup_steps=5",
)
LEVELS = {RECONSTRUCTION_PULL: 0.02, ADVERSARIAL_PULL: 0.5}
"""Norms as of a step that is over."""


def config_of(*overrides: str) -> TrainVaeConfig:
    return load_config(TINY, [*QUICK, *overrides]).train_vae


def make(shards: ShardSet, *overrides: str) -> VaeObjective:
    config = config_of(*overrides)
    network = STVae(config.shape)
    network.initialise(torch.Generator().manual_seed(0))
    return VaeObjective(network, shards, config, CPU)


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_shards(tmp_path_factory.mktemp("moving") / "shards")


@pytest.fixture
def shards(clip_folder: Path) -> Iterator[ShardSet]:
    with ShardSet(clip_folder, "train") as opened:
        yield opened


def test_every_epoch_sees_each_distinct_picture_once(tiny_shards: Path) -> None:
    with ShardSet(tiny_shards, "train") as shards:
        objective = make(shards)
        seen = torch.cat([objective.batch(step, range(6)).pixels for step in range(4)])
    assert seen.shape == (24, 3, 1, 16, 16)
    assert len({picture.numpy().tobytes() for picture in seen}) == 24
    assert -1.0 <= float(seen.min()) < -0.5
    assert 0.5 < float(seen.max()) <= 1.0


def test_a_closed_objective_leaves_no_threads(shards: ShardSet) -> None:
    before = set(threading.enumerate())
    with closing(make(shards)) as objective:
        objective.batch(0, range(6))
        started = set(threading.enumerate()) - before
    assert started
    assert not any(thread.is_alive() for thread in started)


def test_a_set_at_hand_is_shown_in_the_order_that_resumed_runs_rely_on(shards: ShardSet) -> None:
    """The definition, written out."""
    objective = make(shards, *FULL_RECIPE, "train_vae.seed=7")
    members = unique_members(shards)
    step = next(step for step in range(100) if objective.batch(step, range(1)).pixels.shape[2] == 5)
    pictures, clips = (objective.batch(number, range(1, 5)).pixels for number in (0, step))
    for sample in range(4):
        member = members[sample_at(1 + sample, len(members), seed=7)]
        assert torch.equal(pictures[sample, :, 0], to_model(shards.image(member)))
        position = step * 6 + 1 + sample
        frames = shards.clips[sample_at(position, NUM_TRAIN_CLIPS, seed=7)].frames
        first = int(np.random.default_rng([7, 3, position]).integers(CLIP_FRAMES - 4))
        whole = torch.stack([to_model(shards.image(frame)) for frame in frames[first : first + 5]], dim=1)
        assert torch.equal(clips[sample], whole)


def test_windows_of_shards_show_all_pictures_in_an_order_of_their_own(shards: ShardSet) -> None:
    loading = "train_vae.loading={location: 's3://bucket/set', cache_gib: 1.0, window_shards: 1}"
    whole, windows = make(shards), make(shards, loading)
    shown = [[picture.numpy().tobytes() for picture in each.batch(0, range(6)).pixels] for each in (whole, windows)]
    assert shown[0] != shown[1]
    count = len(unique_members(shards))
    seen = torch.cat([windows.batch(step, range(6)).pixels for step in range(-(-count // 6))])[:count]
    assert len({picture.numpy().tobytes() for picture in seen}) == count


def test_a_set_without_pictures_is_refused(tmp_path: Path) -> None:
    for split in SPLITS:
        with ShardWriter(tmp_path, split, 1000):
            pass
    write_manifest(tmp_path, resolution=16, clip_frames=1)
    with ShardSet(tmp_path, "train") as shards, pytest.raises(InputError, match=r"train: holds no pictures to train on; set prepare\.num_"):
        make(shards)


def test_it_learns_to_reconstruct(tiny_shards: Path, tmp_path: Path) -> None:
    with ShardSet(tiny_shards, "train") as shards:
        rows = fit("vae", make(shards), config_of(), Processes(0, 1, CPU), tmp_path).history.rows
    assert rows[-1]["losses"]["squared"] < 0.5 * rows[0]["losses"]["squared"]


def test_the_plain_loss_is_that_of_its_terms(shards: ShardSet) -> None:
    objective = make(shards)
    batch = objective.batch(3, range(6))
    losses = objective(batch)
    reconstruction, mean, logvar = objective.network(batch.pixels, batch.noise)
    expected = vae_losses(reconstruction, batch.pixels, Moments(mean, logvar), absolute_weight=1.0, kl_weight=1e-6)
    torch.testing.assert_close(losses.total, expected.pop("loss"))
    torch.testing.assert_close(losses.parts, {name: value.detach() for name, value in expected.items()})
    assert objective.adversary() is None
    assert objective.state() == {}


def test_clips_come_in_the_second_stage_to_their_share_of_the_steps(shards: ShardSet) -> None:
    overrides = ("train_vae.clips={first_step: 20, share: 0.3, frames: 5}",)
    objective = make(shards, *FULL_RECIPE, *overrides)
    frames = [objective.batch(step, range(1)).pixels.shape[2] for step in range(200)]
    assert set(frames[:20]) == {1}
    assert set(frames[20:]) == {1, 5}
    assert 0.2 < sum(count == 5 for count in frames[20:]) / 180 < 0.4
    again = make(shards, *FULL_RECIPE, *overrides)
    assert [again.batch(step, range(1)).pixels.shape[2] for step in range(199, 19, -1)] == frames[:19:-1]


def test_a_clip_is_consecutive_frames_from_anywhere_in_it(shards: ShardSet) -> None:
    objective = make(shards, *FULL_RECIPE, "train_vae.clips={first_step: 0, share: 1.0, frames: 5}")
    whole = [torch.stack([to_model(frame) for frame in render_clip(0, number, 16, num_frames=CLIP_FRAMES)], dim=1) for number in range(4)]
    found = []
    for step in range(4):
        batch = objective.batch(step, range(6))
        assert batch.pixels.shape == (6, 3, 5, 16, 16)
        assert batch.noise.shape == (6, 16, 2, 2, 2)
        for clip in batch.pixels:
            places = [(n, first) for n in range(NUM_TRAIN_CLIPS) for first in range(5) if torch.equal(whole[n][:, first : first + 5], clip)]
            assert len(places) == 1
            found += places
    assert {number for number, _ in found} == set(range(NUM_TRAIN_CLIPS))
    assert len({first for _, first in found}) == 5


@pytest.mark.parametrize("step", [0, 2, 3, 4, 5])
def test_the_shares_of_two_processes_are_the_batch_of_one(shards: ShardSet, step: int) -> None:
    objective = make(shards, *FULL_RECIPE)
    whole, first, second = (objective.batch(step, samples) for samples in (range(6), range(2), range(2, 6)))
    for field in ("pixels", "noise"):
        assert torch.equal(getattr(whole, field), torch.cat([getattr(first, field), getattr(second, field)]))


def test_shards_without_clips_or_with_shorter_ones_are_refused(tiny_shards: Path, shards: ShardSet) -> None:
    with (
        ShardSet(tiny_shards, "train") as still,
        pytest.raises(
            InputError, match=r"shards/train: holds no clips, which train_vae\.clips asks for; set prepare\.num_train_clips above 0$"
        ),
    ):
        make(still, *FULL_RECIPE)
    with pytest.raises(InputError, match=r"^train_vae\.clips\.frames is 13: the clips in .*train have 9 frames$"):
        make(shards, *FULL_RECIPE, "prepare.clip_frames=13", "train_vae.clips.frames=13")


def test_a_perceptual_term_counts_by_its_weight(shards: ShardSet) -> None:
    plain, more = make(shards), make(shards, "train_vae.perceptual={weight: 0.3, features: null}")
    batch = plain.batch(0, range(6))
    losses = more(batch)
    reconstruction, _, _ = plain.network(batch.pixels, batch.noise)
    term = StructuralDissimilarity()(reconstruction, batch.pixels).mean()
    torch.testing.assert_close(losses.parts["perceptual"], term.detach())
    torch.testing.assert_close(losses.total, plain(batch).total + 0.3 * term)


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_one_backward_pass_learns_what_the_textbooks_two_would(shards: ShardSet, step: int) -> None:
    """For pictures and clips: the network against a frozen discriminator, then the discriminator on a detached reconstruction."""
    objective = make(shards, *FULL_RECIPE)
    objective.observe(LEVELS)
    weight = objective.adversarial_weight(step)
    assert weight == pytest.approx(0.5 * 0.02 / 0.5)
    batch = objective.batch(step, range(6))
    losses = objective(batch)
    losses.total.backward()
    network, discriminator = objective.network, objective.discriminator
    assert discriminator is not None
    ours = gradients(network), gradients(discriminator)
    network.zero_grad()

    reconstruction, mean, logvar = network(batch.pixels, batch.noise)
    plain = vae_losses(reconstruction, batch.pixels, Moments(mean, logvar), absolute_weight=1.0, kl_weight=1e-6)["loss"]
    perceptual = StructuralDissimilarity()(reconstruction, batch.pixels).mean()
    discriminator.requires_grad_(False)
    (plain + 0.1 * perceptual - weight * discriminator(reconstruction).mean()).backward()
    torch.testing.assert_close(ours[0], gradients(network), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(losses.total.detach(), (plain + 0.1 * perceptual).detach())

    discriminator.requires_grad_(True).zero_grad()
    fake, real = discriminator(reconstruction.detach()), discriminator(batch.pixels)
    (((1 - real).relu().mean() + (1 + fake).relu().mean()) / 2).backward()
    torch.testing.assert_close(ours[1], gradients(discriminator), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(losses.parts["adversarial"], -per_sample(fake).mean().detach())


def test_before_its_first_step_the_network_does_not_see_the_discriminator_that_learns_already(shards: ShardSet) -> None:
    alone = make(shards, "train_vae.perceptual={weight: 0.1, features: null}")
    against = make(shards, *FULL_RECIPE)
    against.observe(LEVELS)
    batch = against.batch(1, range(6))
    for objective in (alone, against):
        objective(batch).total.backward()
    torch.testing.assert_close(gradients(alone.network), gradients(against.network), rtol=1e-4, atol=1e-7)
    assert against.discriminator is not None
    assert all(weight.grad is not None for weight in against.discriminator.parameters())
    assert against.adversarial_weight(1) == 0.0 < against.adversarial_weight(2)


@pytest.mark.parametrize("step", [2, 3])
def test_any_cut_of_the_batch_gives_the_same_norms_and_the_same_gradient(shards: ShardSet, step: int) -> None:
    objective = make(shards, *FULL_RECIPE)
    objective.observe(LEVELS)
    found = []
    for parts in ([range(6)], [range(1), range(1, 6)], [range(2), range(2, 4), range(4, 6)]):
        objective.zero_grad()
        means: dict[str, Tensor] = {}
        for samples in parts:
            losses = objective(objective.batch(step, samples))
            share = len(samples) / 6
            (share * losses.total).backward()
            means = {name: means.get(name, torch.zeros(())) + share * value for name, value in losses.parts.items()}
        found.append((means, gradients(objective)))
    assert set(found[0][0]) >= {
        RECONSTRUCTION_PULL,
        ADVERSARIAL_PULL,
        "discriminator",
        "adversarial",
        "perceptual",
        "squared",
        "absolute",
        "kl",
    }
    for means, gradient in found[1:]:
        torch.testing.assert_close(means, found[0][0], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-6)


def test_the_whole_recipe_is_trained_alike_whatever_the_micro_batch(shards: ShardSet, tmp_path: Path) -> None:
    results = []
    for micro_batch in ("null", "2"):
        overrides = (*FULL_RECIPE, "train_vae.steps=10", f"train_vae.execution.micro_batch={micro_batch}")
        objective, folder = make(shards, *overrides), tmp_path / micro_batch
        folder.mkdir()
        fitted = fit("vae", objective, config_of(*overrides), Processes(0, 1, CPU), folder)
        results.append((fitted.weights, objective.state(), objective.discriminator))
    assert results[0][1]["num_steps"] == 10
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-2)
    for name, weight in results[0][0].items():
        torch.testing.assert_close(weight, results[1][0][name], rtol=0, atol=2e-3)


def test_both_networks_learn_at_rates_of_their_own(shards: ShardSet) -> None:
    objective = make(shards, *FULL_RECIPE)
    adversary = objective.adversary()
    assert adversary is not None
    assert adversary.module is objective.discriminator
    assert adversary.learning_rate == 1e-3
    fresh = make(shards, *FULL_RECIPE)
    objective.observe(LEVELS)
    fresh.take_up(objective.state())
    assert fresh.adversarial_weight(5) == objective.adversarial_weight(5) > 0


def test_half_precision_stays_near(shards: ShardSet) -> None:
    objective = make(shards, *FULL_RECIPE)
    objective.observe(LEVELS)
    batch = objective.batch(5, range(6))
    exact = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        near = objective(batch)
    near.total.backward()
    assert near.total.dtype == torch.float32
    torch.testing.assert_close(near.total, exact.total, rtol=0.03, atol=0.01)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in objective.parameters())


def test_the_cost_counts_latents_and_every_network_that_takes_part(shards: ShardSet) -> None:
    plain, full = make(shards), make(shards, *FULL_RECIPE)
    batch = full.batch(5, range(6))
    frames = batch.pixels.shape[2]
    assert plain.cost(batch).tokens == 6 * (1 + (frames - 1) // 4) * 4
    encode_and_decode = sum(vae_flops(plain.network.shape, samples=6, frames=frames, height=16, width=16))
    assert plain.cost(batch).flops == TRAINING_FACTOR * encode_and_decode
    extra = full.cost(batch).flops - plain.cost(batch).flops
    adversarial = config_of(*FULL_RECIPE).adversarial
    assert adversarial is not None
    assert extra == pytest.approx(7 * 6 * discriminator_flops(adversarial, Volume(frames, 16, 16)))


def test_a_discriminator_that_halves_too_often_is_refused(shards: ShardSet) -> None:
    deep = "train_vae.adversarial={weight: 0.5, first_step: 0, width: 4, num_layers: 5, learning_rate: 1.0e-3}"
    with pytest.raises(InputError, match=r"^train_vae\.adversarial\.num_layers is 5: must be at most 4, each halves 16 pixels"):
        make(shards, deep)


def test_the_cost_is_less_where_weights_are_frozen(shards: ShardSet) -> None:
    plain, frozen = make(shards), make(shards, "train_vae.frozen=[encoder]")
    batch = plain.batch(0, range(2))
    assert frozen.cost(batch).flops == pytest.approx(vae_passes(config_of("train_vae.frozen=[encoder]")) / 3 * plain.cost(batch).flops)
    assert frozen.cost(batch).flops < 0.8 * plain.cost(batch).flops
