from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from lavin_dit.data.episodes import Episode, EpisodeSampler, EpisodeShape, EpisodeWeights
from lavin_dit.data.mixing import Group
from lavin_dit.data.shards.shard_set import Member, Pair
from lavin_dit.errors import InputError
from lavin_dit.training.processes import Processes

IMAGES, CLIPS = EpisodeShape(3, (16, 1, 2, 2)), EpisodeShape(1, (16, 2, 2, 2))
COUNTS: dict[Group, int] = {("depth", "scenes"): 5, ("edges", "scenes"): 9}
WITH_CLIPS: dict[Group, int] = COUNTS | {("video_depth", "scenes"): 4}


def make_pairs(group: Group, count: int) -> list[Pair]:
    task, source = group
    frames = (Member("shard-00000.tar", 0, 1, "0"),) * (5 if task.startswith("video") else 1)
    return [Pair(f"{task}-{number}", task, str(number), source, frames, frames) for number in range(count)]


def make_sampler(counts: dict[Group, int] = COUNTS, *, clip_share: float | None = None, **changed: Any) -> EpisodeSampler:
    weights = {name: changed.pop(name) for name in ("tasks", "sources") if name in changed}
    settings: dict[str, Any] = {
        "groups": {group: make_pairs(group, count) for group, count in counts.items()},
        "shapes": {"image": IMAGES} if clip_share is None else {"image": IMAGES, "clip": CLIPS},
        "weights": EpisodeWeights(**weights, clip_share=clip_share or 0.0),
        "prompt_drop_probability": 0.25,
        "seed": 0,
    }
    return EpisodeSampler(**(settings | changed))


def equal(first: Episode, second: Episode) -> bool:
    return (
        (first.group, first.context, first.query, first.time_normal) == (second.group, second.context, second.query, second.time_normal)
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


def test_pictures_of_one_source_are_drawn_in_the_order_that_resumed_runs_rely_on() -> None:
    """The definition, written out."""
    sampler, tasks = make_sampler(tasks={"edges": 2.0}, seed=7), ["depth", "edges"]
    for step in range(20):
        num_pairs = int(np.random.default_rng([7, 0, step]).integers(1, 4))
        assert (sampler.drops(step, 8) == (np.random.default_rng([7, 2, step]).random(8) < 0.25)).all()
        random = np.random.default_rng([7, 1, step, 5])
        task = str(random.choice(tasks, p=[1 / 3, 2 / 3]))
        query, *context = random.choice(COUNTS[task, "scenes"], size=num_pairs + 1, replace=False).tolist()
        time_normal, noise = float(random.standard_normal()), random.standard_normal((16, 1, 2, 2), dtype=np.float32)
        assert equal(sampler.draw(step, 5), Episode((task, "scenes"), tuple(context), query, time_normal, noise))


def test_the_context_never_holds_the_query_nor_a_pair_twice() -> None:
    for episode in draws(make_sampler(WITH_CLIPS, clip_share=0.5)):
        shown = (*episode.context, episode.query)
        assert len(set(shown)) == len(shown)
        assert max(shown) < WITH_CLIPS[episode.group]


def test_episodes_of_a_step_show_the_same_number_of_pairs_and_steps_differ() -> None:
    sampler = make_sampler()
    by_step = [{len(sampler.draw(step, sample).context) for sample in range(8)} for step in range(30)]
    assert all(len(numbers) == 1 for numbers in by_step)
    assert set().union(*by_step) == {1, 2, 3}


def test_every_pair_is_asked_and_shown() -> None:
    episodes = [episode for episode in draws(make_sampler()) if episode.group[0] == "edges"]
    assert {episode.query for episode in episodes} == set(range(9))
    assert {position for episode in episodes for position in episode.context} == set(range(9))


def test_tasks_are_drawn_by_weight_and_prompts_dropped_by_chance() -> None:
    weighted = Counter(episode.group[0] for episode in draws(make_sampler(tasks={"edges": 9.0})))
    assert 0.85 < weighted["edges"] / 400 < 0.95
    assert {episode.group[0] for episode in draws(make_sampler(tasks={"edges": 0.0}))} == {"depth"}
    drops = np.stack([make_sampler().drops(step, 8) for step in range(50)])
    assert 0.18 < drops.mean() < 0.32
    assert len({row.tobytes() for row in drops}) > 10, "every step draws anew"
    assert not make_sampler(prompt_drop_probability=0.0).drops(0, 400).any()


def test_all_pairs_of_an_episode_come_from_one_source_and_each_source_has_its_share() -> None:
    counts: dict[Group, int] = {("depth", "kitti"): 24, ("depth", "scenes"): 8}
    episodes = draws(make_sampler(counts))
    assert all(max(*episode.context, episode.query) < counts[episode.group] for episode in episodes)
    assert 0.68 < sum(episode.group[1] == "kitti" for episode in episodes) / 400 < 0.82
    assert {episode.group[1] for episode in draws(make_sampler(counts, sources={"kitti": 0.0}))} == {"scenes"}


def test_a_step_shows_pictures_or_clips_and_each_in_its_shape() -> None:
    sampler = make_sampler(WITH_CLIPS, clip_share=0.3)
    steps = range(300)
    assert 0.22 < sum(sampler.medium(step) == "clip" for step in steps) / len(steps) < 0.38
    for step in steps:
        shape, tasks = (CLIPS, {"video_depth"}) if sampler.medium(step) == "clip" else (IMAGES, {"depth", "edges"})
        episodes = [sampler.draw(step, sample) for sample in range(3)]
        assert {episode.noise.shape for episode in episodes} == {shape.noise_shape}
        assert {episode.group[0] for episode in episodes} <= tasks
        assert 1 <= sampler.num_pairs(step) <= shape.max_pairs


def test_steps_of_pictures_are_the_same_with_and_without_clips() -> None:
    without, sampler = make_sampler(), make_sampler(WITH_CLIPS, clip_share=0.3)
    pictures = [step for step in range(30) if sampler.medium(step) == "image"]
    assert all(equal(sampler.draw(step, 2), without.draw(step, 2)) for step in pictures)


def test_tasks_without_training_pairs_and_clips_that_are_not_asked_for_are_left_out() -> None:
    sampler = make_sampler(WITH_CLIPS | {("pose", "scenes"): 0})
    assert sampler.tasks == ("depth", "edges")
    assert set(sampler.groups) == set(COUNTS)
    assert all(equal(first, second) for first, second in zip(draws(sampler, 20), draws(make_sampler(), 20), strict=True))


def test_a_source_with_too_few_pairs_is_left_out_with_a_warning_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    sampler = make_sampler(COUNTS | {("depth", "kitti"): 3, ("edges", "photos"): 2}, sources={"photos": 5.0})
    assert [record.getMessage() for record in caplog.records] == [
        f"task {task} has {count} training pairs from {source}: an episode needs a query and up to 3 others (train_dit.max_pairs); "
        "they are left out"
        for task, count, source in (("depth", 3, "kitti"), ("edges", 2, "photos"))
    ]
    assert all(equal(first, second) for first, second in zip(draws(sampler, 100), draws(make_sampler(), 100), strict=True))


def test_too_few_pairs_of_what_is_never_drawn_are_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    counts = COUNTS | {("pose", "photos"): 1, ("depth", "kitti"): 1}
    episodes = draws(make_sampler(counts, tasks={"pose": 0.0}, sources={"kitti": 0.0}), 100)
    assert {episode.group for episode in episodes} == set(COUNTS)
    assert not caplog.records


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_the_shares_of_all_processes_are_the_batch_of_one(world_size: int) -> None:
    shares = [Processes(rank, world_size, torch.device("cpu")).share(8) for rank in range(world_size)]
    assert [sample for share in shares for sample in share] == list(range(8))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_that_leaves_a_process_without_a_sample_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch_size is 8: must be at least the number of processes \(9\)"):
        Processes(0, 9, torch.device("cpu")).share(8)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown task": ({"tasks": {"sleep": 1.0, "depth": 1.0}}, "train_dit.task_weights names sleep: the data has depth, edges"),
    "unknown source": ({"sources": {"coco": 1.0}}, "train_dit.source_weights names coco: the data comes from scenes"),
    "no task left": ({"tasks": {"depth": 0.0, "edges": 0.0}}, "train_dit.task_weights: every task on images has weight 0"),
    "too few pairs": (
        {"shapes": {"image": EpisodeShape(5, (16, 1, 2, 2))}},
        r"task depth has 5 training pairs from scenes: .* up to 5 others \(train_dit.max_pairs\)",
    ),
    "too few pairs of every source": (
        {"counts": COUNTS | {("pose", "coco"): 3, ("pose", "photos"): 1}},
        r"task pose has 3 training pairs from coco and 1 training pair from photos: .* up to 3 others \(train_dit.max_pairs\)",
    ),
    "too few clips": (
        {"counts": COUNTS | {("video_depth", "scenes"): 1}, "clip_share": 0.5},
        r"task video_depth has 1 training pair from scenes: .* up to 1 others \(train_dit.clips.max_pairs\)",
    ),
    "no clips": ({"clip_share": 0.5}, "train_dit.clips: 50% of the steps show clips, but no task of the data has any"),
    "clips alone": (
        {"counts": {("video_depth", "scenes"): 4}, "clip_share": 0.5},
        "train_dit.clips: 50% of the steps show images, but no task of the data has any",
    ),
    "a weight for clips that are not asked for": (
        {"counts": WITH_CLIPS, "tasks": {"video_depth": 2.0}},
        "train_dit.task_weights names video_depth, a task on clips: train_dit.clips is null, so that none are shown",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_settings_that_do_not_fit_the_data_are_refused(name: str) -> None:
    changed, sentence = REFUSALS[name]
    with pytest.raises(InputError, match=sentence):
        make_sampler(**changed)
