from pathlib import Path
from typing import Any

import pytest
import torch

from lavin_dit.config import Config, load_config
from lavin_dit.planning.dit_activations import Arithmetic, Episodes, block_memory
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.memory import Memory, dit_memory, largest_micro_batch, vae_memory
from lavin_dit.planning.rehearsal import rehearse_dit, rehearse_vae
from lavin_dit.planning.weights import dit_weights, num_trained, num_weights
from lavin_dit.presets import DIT_PRESETS
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import AdversarialConfig, ClipEpisodesConfig, ClipsConfig, LoraConfig

TINY = Path(__file__).parents[2] / "tiny.yaml"
ALONE = Processes(0, 1, torch.device("cpu"))
CHECKPOINTING = ("none", "selective", "full")
WITHIN = 0.10
"""What plans promise; most cases come within 0.02."""


def config(section: str = "train_dit", **changes: Any) -> Config:
    execution = {"micro_batch", "precision", "sharding", "cpu_offload", "activation_checkpointing"}
    sets = [f"{section}.{'execution.' if key in execution else ''}{key}={value}".replace("None", "null") for key, value in changes.items()]
    return load_config(TINY, sets)


def of_dit(whole: Config, layout: Layout, *, on_gpu: bool = False, resolution: int = 64, samples: int | None = None) -> Memory:
    section = whole.train_dit
    parts = MicroBatches.of_share(layout.share(section.batch_size), samples or section.execution.micro_batch)
    return dit_memory(section, layout, samples=parts.samples, count=parts.count, resolution=resolution, on_gpu=on_gpu)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
@pytest.mark.parametrize(
    ("shape", "batch", "resolution", "pairs", "micro_batch"),
    [("tiny", 8, 64, 2, None), ("laptop", 4, 64, 2, None), ("laptop", 2, 128, 4, 1)],
)
def test_the_j_dits_peak_is_what_the_allocator_gives_out(
    shape: str, batch: int, resolution: int, pairs: int, micro_batch: int | None, checkpointing: str
) -> None:
    whole = config(shape=f'"{shape}"', batch_size=batch, max_pairs=pairs, micro_batch=micro_batch, activation_checkpointing=checkpointing)
    measured = rehearse_dit(whole.train_dit, ALONE, resolution=resolution).peak_bytes
    assert of_dit(whole, Layout(1, 1), resolution=resolution).peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_it_is_in_half_precision_too(checkpointing: str) -> None:
    whole = config(shape="laptop", batch_size=2, max_pairs=4, precision="bfloat16", activation_checkpointing=checkpointing)
    measured = rehearse_dit(whole.train_dit, ALONE, resolution=128).peak_bytes
    assert of_dit(whole, Layout(1, 1), resolution=128).peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
@pytest.mark.parametrize(("shape", "batch", "frames"), [("tiny", 8, 1), ("laptop", 2, 1), ("tiny", 2, 5)])
def test_the_st_vaes_peak_is_what_the_allocator_gives_out(shape: str, batch: int, frames: int, checkpointing: str) -> None:
    section = config("train_vae", shape=shape, batch_size=batch, activation_checkpointing=checkpointing).train_vae
    if frames > 1:
        section = section.model_copy(update={"clips": ClipsConfig(first_step=0, share=1.0, frames=frames)})
    measured = rehearse_vae(section, ALONE, frames=frames, resolution=64).peak_bytes
    planned = vae_memory(section, Layout(1, 1), samples=batch, count=1, resolution=64, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize(("frames", "checkpointing"), [(1, "none"), (1, "full"), (5, "selective")])
def test_the_st_vae_in_half_precision_is_planned_for(frames: int, checkpointing: str) -> None:
    section = config("train_vae", shape="laptop", batch_size=2, precision="bfloat16", activation_checkpointing=checkpointing).train_vae
    section = section.model_copy(update={"clips": ClipsConfig(first_step=0, share=1.0, frames=frames) if frames > 1 else None})
    measured = rehearse_vae(section, ALONE, frames=frames, resolution=64).peak_bytes
    planned = vae_memory(section, Layout(1, 1), samples=2, count=1, resolution=64, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize(("width", "frames", "micro_batch"), [(8, 1, 8), (64, 1, 8), (64, 1, 4), (32, 5, 2)])
def test_it_is_with_a_perceptual_and_an_adversarial_term_too(width: int, frames: int, micro_batch: int) -> None:
    adversarial = AdversarialConfig(weight=0.5, first_step=0, width=width, num_layers=3, learning_rate=1e-4)
    clips = ClipsConfig(first_step=0, share=1.0, frames=frames) if frames > 1 else None
    section = config("train_vae", batch_size=8 if frames == 1 else 2, micro_batch=micro_batch, **{"perceptual.weight": 0.1}).train_vae
    section = section.model_copy(update={"adversarial": adversarial, "clips": clips})
    measured = rehearse_vae(section, ALONE, frames=frames, resolution=64).peak_bytes
    parts = MicroBatches.of_share(section.batch_size, micro_batch)
    planned = vae_memory(section, Layout(1, 1), samples=parts.samples, count=parts.count, resolution=64, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("frozen", [("encoder",), ("decoder",)])
def test_a_frozen_half_of_the_st_vae_is_planned_for(frozen: tuple[str, ...]) -> None:
    section = config("train_vae", shape="laptop", batch_size=2).train_vae.model_copy(update={"frozen": frozen})
    measured = rehearse_vae(section, ALONE, frames=1, resolution=64).peak_bytes
    planned = vae_memory(section, Layout(1, 1), samples=2, count=1, resolution=64, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


BEFORE_THE_THIRD_BLOCK = (
    "blocks.0",
    "blocks.1",
    "prompt_embed",
    "answer_embed",
    "prompt_embedder",
    "answer_embedder",
    "time_embedding",
    *(f"blocks.{index}.{side}_modulation" for index in (2, 3) for side in ("prompt", "answer")),
)


@pytest.mark.parametrize("frozen", [("blocks.0", "blocks.1"), ("blocks",), BEFORE_THE_THIRD_BLOCK])
def test_frozen_blocks_of_the_j_dit_are_planned_for(frozen: tuple[str, ...]) -> None:
    section = config(shape="laptop", batch_size=4).train_dit.model_copy(update={"frozen": frozen})
    measured = rehearse_dit(section, ALONE, resolution=64).peak_bytes
    planned = dit_memory(section, Layout(1, 1), samples=4, count=1, resolution=64, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("checkpointing", ["none", "selective"])
def test_low_rank_updates_are_planned_for(checkpointing: str) -> None:
    whole = config(shape="laptop", batch_size=4, activation_checkpointing=checkpointing)
    section = whole.train_dit.model_copy(update={"lora": LoraConfig(rank=16, alpha=8.0)})
    measured = rehearse_dit(section, ALONE, resolution=64).peak_bytes
    planned = dit_memory(section, Layout(1, 1), samples=4, count=1, resolution=64, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_episodes_of_clips_are_planned_for(checkpointing: str) -> None:
    whole = config(shape="laptop", batch_size=2, activation_checkpointing=checkpointing)
    section = whole.train_dit.model_copy(update={"clips": ClipEpisodesConfig(share=0.5, max_pairs=1)})
    measured = rehearse_dit(section, ALONE, resolution=64, frames=9).peak_bytes
    planned = dit_memory(section, Layout(1, 1), samples=2, count=1, resolution=64, clip_frames=9, on_gpu=False)
    assert planned.peak == pytest.approx(measured, rel=WITHIN)


def test_the_larger_of_the_steps_of_pictures_and_of_clips_is_planned_for() -> None:
    pictures = config(shape="laptop", max_pairs=8).train_dit

    def peak(max_pairs: int | None, clip_frames: int) -> int:
        clips = ClipEpisodesConfig(share=0.5, max_pairs=max_pairs) if max_pairs else None
        section = pictures.model_copy(update={"clips": clips})
        return dit_memory(section, Layout(1, 1), samples=4, count=1, resolution=64, clip_frames=clip_frames, on_gpu=False).peak

    assert peak(1, 5) == peak(None, 5) == peak(None, 1) < peak(8, 5) < peak(8, 9)


def test_attention_that_is_not_fused_keeps_its_probabilities() -> None:
    shape, episodes = DIT_PRESETS["laptop"], Episodes.of_pairs(2, num_pairs=2, resolution=256)
    fused, plain = (block_memory(shape, episodes, Arithmetic("float32", on_gpu), is_last=False) for on_gpu in (False, True))
    probabilities = episodes.samples * shape.num_heads * episodes.tokens**2 * 4
    assert plain.kept - fused.kept == pytest.approx(probabilities, rel=0.1)
    assert block_memory(shape, episodes, Arithmetic("bfloat16", on_gpu=True), is_last=False).kept < fused.kept


def test_a_state_that_is_split_is_divided_by_those_that_share_it() -> None:
    alone, split, hybrid = (of_dit(config(batch_size=16, sharding=sharding), Layout(16, 8)) for sharding in ("none", "full", "hybrid"))
    section = config().train_dit
    weights = dit_weights(section.shape)
    assert alone.weights == 4 * num_weights(weights)
    assert alone.moments == 2 * alone.average == 2 * alone.gradients == 8 * num_trained(weights, section.frozen)
    for part in ("weights", "gradients", "moments", "average"):
        assert getattr(split, part) == pytest.approx(getattr(alone, part) / 16, abs=2)
        assert getattr(hybrid, part) == pytest.approx(getattr(alone, part) / 8, abs=2)


def test_a_state_on_the_host_takes_nothing_of_a_gpu_but_whole_layers() -> None:
    changes = {"batch_size": 8, "sharding": "full"}
    kept, offloaded = (of_dit(config(**changes, cpu_offload=offload), Layout(8, 8), on_gpu=True) for offload in ("false", "true"))
    assert offloaded.weights == offloaded.moments == 0
    assert offloaded.host == kept.weights + kept.gradients + kept.moments + kept.average
    assert offloaded.copies == kept.copies
    assert kept.peak - kept.weights - kept.moments - kept.average >= offloaded.peak - kept.gradients


def test_the_largest_micro_batch_fits_and_the_next_one_does_not() -> None:
    whole = config(shape='"1.0B"', batch_size=64, max_pairs=8, precision="bfloat16")
    memory_gib = 60.0

    def memory_of(parts: MicroBatches) -> Memory:
        return dit_memory(whole.train_dit, Layout(1, 1), samples=parts.samples, count=parts.count, resolution=256, on_gpu=True)

    largest = largest_micro_batch(memory_of, 64, memory_gib)
    assert largest is not None
    assert memory_of(MicroBatches.of_share(64, largest)).fits(memory_gib)
    assert not any(memory_of(MicroBatches.of_share(64, more)).fits(memory_gib) for more in range(largest + 1, 65))
    assert largest_micro_batch(memory_of, 64, 1.0) is None


def test_the_papers_largest_size_does_not_fit_one_device_of_80_gib_without_sharding() -> None:
    whole = config(shape='"3.4B"', batch_size=128, max_pairs=8, precision="bfloat16", activation_checkpointing="full", micro_batch=1)
    assert not of_dit(whole, Layout(64, 8), on_gpu=True, resolution=256).fits(79.1)
    split = config(
        shape='"3.4B"', batch_size=128, max_pairs=8, precision="bfloat16", activation_checkpointing="full", micro_batch=1, sharding="full"
    )
    assert of_dit(split, Layout(64, 8), on_gpu=True, resolution=256).fits(79.1)
