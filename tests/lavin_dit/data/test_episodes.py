from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from lavin_dit.data.episodes import Episode, EpisodeSampler
from lavin_dit.data.shards import Member, Pair
from lavin_dit.errors import InputError
from lavin_dit.training.processes import Processes


def make_pairs(task: str, count: int) -> list[Pair]:
    member = Member("shard-00000.tar", 0, 1, "0")
    return [Pair(f"{task}-{number}", task, str(number), "scenes", (member,), (member,)) for number in range(count)]


def make_sampler(**changed: Any) -> EpisodeSampler:
    settings: dict[str, Any] = {
        "pairs": {"depth": make_pairs("depth", 5), "edges": make_pairs("edges", 9)},
        "task_weights": {},
        "max_pairs": 3,
        "prompt_drop_probability": 0.25,
        "noise_shape": (16, 1, 2, 2),
        "seed": 0,
    }
    return EpisodeSampler(**(settings | changed))


def equal(first: Episode, second: Episode) -> bool:
    return (
        (first.task, first.context, first.query, first.time_normal) == (second.task, second.context, second.query, second.time_normal)
    ) and np.array_equal(first.noise, second.noise)


def draws(sampler: EpisodeSampler, count: int = 400) -> list[Episode]:
    return [sampler.draw(number // 4, number % 4) for number in range(count)]


def test_an_episode_depends_on_seed_step_and_sample_alone() -> None:
    sampler = make_sampler()
    backwards = [sampler.draw(step, sample) for step in (2, 1) for sample in (3, 0)][::-1]
    forwards = [make_sampler().draw(step, sample) for step in (1, 2) for sample in (0, 3)]
    assert all(equal(first, second) for first, second in zip(forwards, backwards, strict=True))
    others = [make_sampler(seed=1).draw(1, 0), sampler.draw(1, 1), sampler.draw(0, 0)]
    assert not any(equal(forwards[0], other) for other in others)


def test_the_context_never_holds_the_query_nor_a_pair_twice() -> None:
    for episode in draws(make_sampler()):
        shown = (*episode.context, episode.query)
        assert len(set(shown)) == len(shown)
        assert max(shown) < {"depth": 5, "edges": 9}[episode.task]


def test_episodes_of_a_step_show_the_same_number_of_pairs_and_steps_differ() -> None:
    sampler = make_sampler()
    by_step = [{len(sampler.draw(step, sample).context) for sample in range(8)} for step in range(30)]
    assert all(len(numbers) == 1 for numbers in by_step)
    assert set().union(*by_step) == {1, 2, 3}


def test_every_pair_is_asked_and_shown() -> None:
    episodes = [episode for episode in draws(make_sampler()) if episode.task == "edges"]
    assert {episode.query for episode in episodes} == set(range(9))
    assert {position for episode in episodes for position in episode.context} == set(range(9))


def test_tasks_are_drawn_by_weight_and_prompts_dropped_by_chance() -> None:
    even = Counter(episode.task for episode in draws(make_sampler()))
    weighted = Counter(episode.task for episode in draws(make_sampler(task_weights={"edges": 9.0})))
    assert 0.4 < even["edges"] / 400 < 0.6
    assert 0.85 < weighted["edges"] / 400 < 0.95
    assert {episode.task for episode in draws(make_sampler(task_weights={"edges": 0.0}))} == {"depth"}
    drops = np.stack([make_sampler().drops(step, 8) for step in range(50)])
    assert 0.18 < drops.mean() < 0.32
    assert len({row.tobytes() for row in drops}) > 10, "every step draws anew"
    assert not make_sampler(prompt_drop_probability=0.0).drops(0, 400).any()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_the_shares_of_all_processes_are_the_batch_of_one(world_size: int) -> None:
    shares = [Processes(rank, world_size, torch.device("cpu")).share(8) for rank in range(world_size)]
    assert [sample for share in shares for sample in share] == list(range(8))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_that_leaves_a_process_without_a_sample_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch_size is 8: must be at least the number of processes \(9\)"):
        Processes(0, 9, torch.device("cpu")).share(8)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown task": ({"task_weights": {"sleep": 1.0, "depth": 1.0}}, "train_dit.task_weights names sleep: the data has depth, edges"),
    "no task left": ({"task_weights": {"depth": 0.0, "edges": 0.0}}, "train_dit.task_weights: every task of the data has weight 0"),
    "too few pairs": ({"max_pairs": 5}, r"task depth has 5 training pairs: .* up to 5 others \(train_dit.max_pairs\)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_settings_that_do_not_fit_the_data_are_refused(name: str) -> None:
    changed, sentence = REFUSALS[name]
    with pytest.raises(InputError, match=sentence):
        make_sampler(**changed)
