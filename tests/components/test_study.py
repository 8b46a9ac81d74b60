import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from components.study import NUM_PAIRS, SIZES, experiments, held_out_tasks, resize, vary
from lavin_dit.config import Config, load_config, section_from_json
from lavin_dit.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "recipes" / "study.yaml")


def test_the_recipe_of_the_study_fits_its_sizes_and_pairs(config: Config) -> None:
    variations = vary(config.train_dit, config.evaluate, sizes=SIZES, num_pairs=NUM_PAIRS)
    assert list(variations.models) == list(SIZES)
    assert list(variations.questions) == list(NUM_PAIRS)
    assert config.train_dit.max_pairs == max(NUM_PAIRS) == config.evaluate.sampling.num_pairs
    assert config.prepare.num_train_scenes > config.train_dit.max_pairs


def test_a_size_changes_the_shape_and_the_rate_and_nothing_else(config: Config) -> None:
    section = resize(config.train_dit, "3x96")
    assert (section.shape.depth, section.shape.dim, section.shape.head_dim) == (3, 96, config.train_dit.shape.head_dim)
    unchanged = {"shape": config.train_dit.shape, "optimizer": config.train_dit.optimizer}
    assert section.model_copy(update=unchanged) == config.train_dit


def test_the_rate_of_the_recipes_own_width_is_the_recipes_and_falls_with_the_width(config: Config) -> None:
    own = config.train_dit
    assert resize(own, f"9x{own.shape.dim}").optimizer == own.optimizer
    rates = [resize(own, f"2x{dim}").optimizer for dim in (48, 96, 192)]
    squared = [rate.learning_rate**2 * dim for rate, dim in zip(rates, (48, 96, 192), strict=True)]
    assert squared == pytest.approx([squared[0]] * 3)
    share = own.optimizer.final_learning_rate / own.optimizer.learning_rate
    assert [rate.final_learning_rate / rate.learning_rate for rate in rates] == pytest.approx([share] * 3)


def test_two_tasks_are_held_out_and_others_of_their_kind_are_not(config: Config) -> None:
    assert held_out_tasks(config.train_dit) == ("denoising", "foreground")
    assert {"deblurring", "super_resolution", "semantic"} <= set(config.prepare.tasks) - set(held_out_tasks(config.train_dit))


@pytest.mark.parametrize(
    ("sizes", "num_pairs", "sentence"),
    [
        (["4-192"], [0], r"sizes holds '4-192': must read DEPTHxWIDTH"),
        (["0x48"], [0], r"sizes holds '0x48': must read"),
        (["2x50"], [0], r"sizes holds 2x50: its width must be a multiple of 24"),
        (["2x72"], [0], r"sizes holds 2x72: num_heads is 3: must be a multiple of kv_group \(2\)"),
        ([], [0], r"sizes is \[\]: needs one or more"),
        (["2x48", "2x48"], [0], r'sizes is \["2x48", "2x48"\]: needs .* each but once'),
        (["2x48"], [], r"num_pairs is \[\]"),
        (["2x48"], [1, 1], r"num_pairs is \[1, 1\]"),
        (["2x48"], [9], r"num_pairs holds 9: must be a whole number from 0 to evaluate.sampling.num_pairs \(8\)"),
        (["2x48"], [-1], r"num_pairs holds -1"),
        (["2x48"], [0.5], r"num_pairs holds 0.5"),
        (["2x48"], ["1"], r'num_pairs holds "1": must be a whole number'),
        (["2x48"], [None], r"num_pairs holds null"),
        (["2x48"], [float("inf")], r"num_pairs holds inf"),
        ([248], [0], r"sizes holds 248: must read DEPTHxWIDTH"),
        ([["2x48"]], [0], r'sizes holds \["2x48"\]: must read'),
    ],
)
def test_what_cannot_be_varied_is_refused_in_a_sentence(config: Config, sizes: list[Any], num_pairs: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        vary(config.train_dit, config.evaluate, sizes=sizes, num_pairs=num_pairs)


def test_numbers_that_come_as_floats_are_whole_numbers_in_the_sections(config: Config) -> None:
    variations = vary(config.train_dit, config.evaluate, sizes=["2x48"], num_pairs=[0.0, 8.0])
    assert [json.loads(item)["sampling"]["num_pairs"] for item in variations.question_items()] == [0, 8]


def test_what_the_pipeline_takes_is_what_the_steps_read(config: Config) -> None:
    variations = vary(config.train_dit, config.evaluate, sizes=SIZES, num_pairs=NUM_PAIRS)
    for item, (size, section) in zip(variations.model_items(), variations.models.items(), strict=True):
        assert item["size"] == size
        assert section_from_json("train_dit", item["section"]) == section
    assert [section_from_json("evaluate", item) for item in variations.question_items()] == list(variations.questions.values())


def test_an_experiment_changes_the_parameters_as_the_pipeline_does(config: Config) -> None:
    variations = vary(config.train_dit, config.evaluate, sizes=["2x48", "6x288"], num_pairs=[0, 8])
    commands = experiments(variations)
    assert len(commands) == 4
    for command, (size, count) in zip(commands, [("2x48", 0), ("2x48", 8), ("6x288", 0), ("6x288", 8)], strict=True):
        assert shlex.split(shlex.join(command)) == command
        assert command[:2] == ["--name", f"study-{size}-{count}-pairs"]
        changed = load_config(ROOT / "recipes" / "study.yaml", command[3::2])
        assert set(command[2::2]) == {"--set-param"}
        assert changed.train_dit == variations.models[size]
        assert changed.evaluate == variations.questions[count]
