from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.config import load_config
from lavin_dit.planning.dit_layer_times import dit_passes_s
from lavin_dit.planning.layer_times import ALONE, MOST_FLOPS, Portion, Stopwatch, passes_s
from lavin_dit.planning.rehearsal import rehearse_dit, rehearse_vae
from lavin_dit.planning.vae_layer_times import vae_passes_s
from lavin_dit.planning.vae_layers import Volume, vae_layers
from lavin_dit.training_config import LoraConfig, TrainDitConfig, TrainVaeConfig

TINY = Path(__file__).parents[2] / "tiny.yaml"
SIZE = {"samples": 2, "resolution": 32}
DISCRIMINATOR = "train_vae.adversarial={weight: 0.5, first_step: 0, width: 8, num_layers: 2, learning_rate: 1.0e-4}"
STRUCTURE = "train_vae.perceptual.weight=0.1"
DIT_CASES = {
    "plain": [],
    "full": ["train_dit.execution.activation_checkpointing=full"],
    "selective": ["train_dit.execution.activation_checkpointing=selective"],
    "frozen": ["train_dit.frozen=[blocks.0, blocks.1, time_embedding, prompt_embed, answer_embed, prompt_embedder, answer_embedder]"],
    "a frozen part": ["train_dit.frozen=[blocks.1.attention]"],
    "bfloat16": ["train_dit.execution.precision=bfloat16"],
}
VAE_CASES = {
    "plain": [],
    "full": ["train_vae.execution.activation_checkpointing=full"],
    "frozen": ["train_vae.frozen=[encoder]"],
    "judged": [DISCRIMINATOR, STRUCTURE],
    "bfloat16": ["train_vae.execution.precision=bfloat16"],
}


def dit_section(*sets: str) -> TrainDitConfig:
    return load_config(TINY, ["train_dit.shape=laptop", "train_dit.batch_size=2", *sets]).train_dit


def vae_section(*sets: str) -> TrainVaeConfig:
    return load_config(TINY, ["train_vae.shape=tiny", "train_vae.batch_size=2", *sets]).train_vae


def test_two_parts_tell_what_any_micro_batch_takes_that_grows_with_its_operations() -> None:
    def flops(portion: Portion) -> float:
        return portion.samples * portion.resolution**2 * 1e5

    def seconds(portion: Portion) -> float:
        return 3.0 + flops(portion) / 1e9

    for samples, resolution in ((1, 16), (1, 256), (3, 64), (640, 64), (7, 512)):
        whole = Portion(samples, resolution)
        assert passes_s(whole, seconds, flops, largest=0.5, step=8) == pytest.approx(seconds(whole))


def test_no_layer_is_timed_on_more_than_is_needed() -> None:
    timed: list[Portion] = []

    def flops(portion: Portion) -> float:
        return portion.samples * portion.resolution**2 * 1e6

    def seconds(portion: Portion) -> float:
        timed.append(portion)
        return flops(portion)

    passes_s(Portion(64, 512), seconds, flops, largest=0.1, step=16)
    assert timed[0].samples > timed[1].samples
    assert 0.2 * MOST_FLOPS < 0.1 * flops(timed[0]) <= MOST_FLOPS


@pytest.mark.parametrize("case", DIT_CASES)
def test_every_layer_of_the_j_dit_counts_once(case: str) -> None:
    section = dit_section(*DIT_CASES[case])
    # On this clock everything takes a second: what is before and after the blocks is one layer more.
    assert dit_passes_s(section, **SIZE, stopwatch=Stopwatch(clock=count().__next__)) == section.shape.depth + 1


@pytest.mark.parametrize("case", VAE_CASES)
@pytest.mark.parametrize("frames", [1, 5])
def test_every_layer_of_the_st_vae_counts_once(case: str, frames: int) -> None:
    section = vae_section(*VAE_CASES[case])
    num_layers = len(vae_layers(section.shape, Volume(frames, 32, 32)))
    assert vae_passes_s(section, **SIZE, frames=frames, stopwatch=Stopwatch(clock=count().__next__)) == num_layers + 1


@pytest.mark.parametrize("case", DIT_CASES)
def test_the_j_dits_layers_do_the_work_of_its_step(case: str) -> None:
    section = dit_section(*DIT_CASES[case])
    with counting() as flops:
        in_layers = dit_passes_s(section, **SIZE, stopwatch=Stopwatch(clock=flops))
    with counting() as flops:
        rehearse_dit(section, ALONE, resolution=SIZE["resolution"])
        assert in_layers == pytest.approx(flops(), rel=0.001)


@pytest.mark.parametrize("case", [case for case in VAE_CASES if case != "judged"])
@pytest.mark.parametrize("frames", [1, 5])
def test_the_st_vaes_layers_do_the_work_of_its_step(case: str, frames: int) -> None:
    # The counter cannot follow the discriminator's own gradients.
    section = vae_section(*VAE_CASES[case])
    with counting() as flops:
        in_layers = vae_passes_s(section, **SIZE, frames=frames, stopwatch=Stopwatch(clock=flops))
    with counting() as flops:
        rehearse_vae(section, ALONE, resolution=SIZE["resolution"], frames=frames)
        assert in_layers == pytest.approx(flops(), rel=0.001)


def test_low_rank_updates_are_timed_with_the_linears_that_they_update() -> None:
    pytest.importorskip("peft")
    section = dit_section().model_copy(update={"lora": LoraConfig(rank=8, alpha=8.0)})
    with counting() as flops:
        in_layers = dit_passes_s(section, **SIZE, stopwatch=Stopwatch(clock=flops))
    with counting() as flops:
        rehearse_dit(section, ALONE, resolution=SIZE["resolution"])
        assert in_layers == pytest.approx(flops(), rel=0.001)


@contextmanager
def counting() -> Iterator[Callable[[], float]]:
    """A clock that goes by operations."""
    with FlopCounterMode(display=False) as counter:
        yield lambda: float(counter.get_total_flops())
