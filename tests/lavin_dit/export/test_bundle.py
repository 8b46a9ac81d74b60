import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lavin_dit.config import SamplingConfig
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.errors import InputError
from lavin_dit.export.bundle import Model, gather_facts, pick_contexts, render_card
from lavin_dit.sampling import time_grid
from lavin_dit.weights import load_dit, load_vae

SAMPLING = {"num_points": 4, "guidance_scale": 1.5, "num_pairs": 2}
LINEAGE = {
    "package_version": "0",
    "data_manifest_sha256": "ab" * 32,
    "parameters": {"prepare": {"seed": 0, "num_train_scenes": 4}, "train_dit": {"max_pairs": 2}, "evaluate": {"sampling": SAMPLING}},
}
PARITY = {"relative_error": 1.2e-6, "max_relative_error": 1e-3, "passed": True, "queries": 3}
SIZES = {"vae": 1_000_000, "dit": 2_000_000}


@pytest.fixture(scope="module")
def model(export_inputs: dict[str, Path]) -> Model:
    return Model(load_vae(export_inputs["vae"]), load_dit(export_inputs["dit"]), SamplingConfig(**SAMPLING))


def test_the_table_gives_the_network_of_every_time_of_the_grid(model: Model, exported_bundle: Path) -> None:
    with np.load(exported_bundle / "modulation.npz") as table:
        np.testing.assert_array_equal(table["times"], time_grid(4)[:-1].astype(np.float32))
        assert len(table["blocks"]) == len(table["final"]) == 3
        for time, blocks, final in zip(table["times"], table["blocks"], table["final"], strict=True):
            expected = model.dit.time_table(torch.tensor([float(time)]))
            torch.testing.assert_close(torch.from_numpy(blocks), expected.blocks[0])
            torch.testing.assert_close(torch.from_numpy(final), expected.final[0])


def test_default_context_pairs_are_training_pairs_of_different_scenes(export_inputs: dict[str, Path], exported_bundle: Path) -> None:
    with ShardSet(export_inputs["shards"], "train") as shards, np.load(exported_bundle / "contexts" / "denoising.npz") as context:
        pictures = {
            pair: (shards.image(pair.input[0]).tobytes(), shards.image(pair.target[0]).tobytes()) for pair in shards.pairs_of("denoising")
        }
        shown = {(first.tobytes(), second.tobytes()) for first, second in zip(context["inputs"], context["targets"], strict=True)}
        assert len({pair.scene for pair, content in pictures.items() if content in shown}) == len(shown) == 2


def test_default_context_pairs_follow_from_the_seed_alone(export_inputs: dict[str, Path]) -> None:
    with ShardSet(export_inputs["shards"], "train") as shards:
        by_seed = [pick_contexts(shards, num_pairs=2, seed=seed)["denoising"].inputs.tobytes() for seed in (0, *range(8))]
    assert by_seed[0] == by_seed[1]
    assert len(set(by_seed)) > 1


def test_all_training_pairs_can_be_shown_and_more_cannot(export_inputs: dict[str, Path]) -> None:
    with ShardSet(export_inputs["shards"], "train") as shards:
        inputs = pick_contexts(shards, num_pairs=4, seed=0)["denoising"].inputs
        assert len({picture.tobytes() for picture in inputs}) == 4
        with pytest.raises(InputError, match=r"num_pairs is 5: task denoising has 4 training pairs"):
            pick_contexts(shards, num_pairs=5, seed=0)


def test_the_facts_hold_what_the_runtime_is_told(model: Model, exported_bundle: Path) -> None:
    facts = json.loads((exported_bundle / "bundle.json").read_text())
    assert facts["format"] == 1
    assert facts["resolution"] == 32
    assert facts["latents"] == {"channels": 16, "pixels_a_side": 8, "shift": 0.1, "scale": 1.2}
    assert facts["sampling"] == {**SAMPLING, "time_grid": time_grid(4).tolist()}
    assert facts["graphs"]["dit_velocity"]["inputs"]["prompt"] == {"dtype": "float32", "shape": ["b", 16, "f", "y", "x"]}
    assert facts["tasks"]["denoising"]["metrics"]["model"] == {"psnr": 21.5}
    assert facts["tasks"]["semantic"]["metrics"] is None


def test_the_card_tells_what_was_measured_and_what_was_not(model: Model) -> None:
    scores = {"model": {"psnr": 21.5}, "query_unchanged": {"psnr": 18.25}, "context_mean": {"psnr": None}}
    metrics = {"tasks": {"denoising": {"metric": "psnr", "better": "higher", "beats_baselines": True, **scores}}}
    facts = gather_facts(model, ["denoising", "semantic"], metrics=metrics, lineage=LINEAGE) | {"parity": PARITY}
    card = render_card(facts, num_parameters=SIZES)
    assert "| Denoising | psnr ↑ | 21.5 | 18.25 | not measured | yes |" in card
    assert "| Semantic" not in card
    assert "- `semantic`: Semantic segmentation." in card
    assert "1.2e-06" in card
    assert "--task denoising" in card


def test_the_card_says_so_where_nothing_was_measured(model: Model) -> None:
    facts = gather_facts(model, ["semantic"], metrics={"tasks": {}}, lineage=LINEAGE) | {"parity": PARITY}
    card = render_card(facts, num_parameters=SIZES)
    assert "No task of this bundle was measured." in card
    assert "| Task |" not in card


def test_a_task_of_the_users_own_is_described_too(model: Model) -> None:
    facts = gather_facts(model, ["my_task"], metrics={"tasks": {}}, lineage=LINEAGE)
    assert facts["tasks"]["my_task"] | {"summary": ""} == {
        "title": "My task",
        "summary": "",
        "kind": "image",
        "is_nearest": False,
        "input_is_nearest": False,
        "context": "contexts/my_task.npz",
        "metrics": None,
    }
