from pathlib import Path

import pytest
import torch

from lavin_dit.config import SamplingConfig
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.errors import InputError
from lavin_dit.export.bundle import Model, pick_contexts
from lavin_dit.export.parity import Question, measure_parity, pick_questions
from lavin_dit.export.runtime import Bundle
from lavin_dit.progress import Progress
from lavin_dit.weights import load_dit, load_vae


@pytest.fixture(scope="module")
def questions(export_inputs: dict[str, Path]) -> list[Question]:
    with ShardSet(export_inputs["shards"], "train") as train, ShardSet(export_inputs["shards"], "test") as test:
        return pick_questions(test, pick_contexts(train, num_pairs=2, seed=0), count=5)


@pytest.fixture
def model(export_inputs: dict[str, Path]) -> Model:
    sampling = SamplingConfig(num_points=4, guidance_scale=1.5, num_pairs=2)
    return Model(load_vae(export_inputs["vae"]), load_dit(export_inputs["dit"]), sampling)


def parity(bundle: Path, model: Model, questions: list[Question]) -> float:
    with Progress("parity", len(questions), silent=True) as progress:
        opened = Bundle.open(bundle, verify=False, num_threads=1)
        return measure_parity(opened, model, questions, seed=3, progress=progress)


def test_questions_go_round_the_tasks(questions: list[Question], export_inputs: dict[str, Path]) -> None:
    assert [question.task for question in questions] == ["denoising", "semantic", "denoising", "semantic", "denoising"]
    assert len({question.query.tobytes() for question in questions}) == 5
    with ShardSet(export_inputs["shards"], "test") as shards:
        held_out = {shards.image(pair.input[0]).tobytes() for pair in shards.pairs}
    assert {question.query.tobytes() for question in questions} <= held_out


def test_there_must_be_a_held_out_pair(export_inputs: dict[str, Path]) -> None:
    with ShardSet(export_inputs["shards"], "test") as shards, pytest.raises(InputError, match="holds no held-out pairs"):
        pick_questions(shards, {}, count=1)


def test_the_exported_model_answers_as_torch_does(exported_bundle: Path, model: Model, questions: list[Question]) -> None:
    assert 0 < parity(exported_bundle, model, questions) < 1e-4


def test_a_model_that_differs_does_not_pass(exported_bundle: Path, model: Model, questions: list[Question]) -> None:
    with torch.no_grad():
        model.dit.final_layer.linear.bias.add_(0.05)
    assert parity(exported_bundle, model, questions) > 1e-3


def test_a_model_that_answers_nan_does_not_pass(exported_bundle: Path, model: Model, questions: list[Question]) -> None:
    with torch.no_grad():
        model.dit.final_layer.linear.bias.fill_(torch.nan)
    assert not parity(exported_bundle, model, questions) <= 1e-3
