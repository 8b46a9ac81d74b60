from collections import Counter

import pytest

from lavin_dit.data.shards.shard_set import Member, Pair
from lavin_dit.errors import InputError
from lavin_dit.evaluation.queries import Query, draw_queries


def pairs_of(task: str, *, scenes: int, views: int = 1) -> list[Pair]:
    member = Member("shard-00000.tar", 0, 1, "0" * 64)
    frames = (member,)
    return [
        Pair(f"{task}-{scene}-{view}", task, f"scene-{scene}", "scenes", frames, frames) for scene in range(scenes) for view in range(views)
    ]


def draw(pairs: dict[str, list[Pair]], *, queries_per_task: int = 100, num_pairs: int = 2, seed: int = 0) -> list[Query]:
    return draw_queries(dict(pairs), queries_per_task=queries_per_task, num_pairs=num_pairs, seed=seed)


def test_no_query_is_shown_its_own_scene_nor_one_scene_twice() -> None:
    for query in draw({"a": pairs_of("a", scenes=7, views=3), "b": pairs_of("b", scenes=5)}, num_pairs=3):
        scenes = [query.pair.scene, *(pair.scene for pair in query.context)]
        assert len(set(scenes)) == 4
        assert {pair.task for pair in query.context} == {query.task} == {query.pair.task}


def test_queries_are_numbered_through_all_tasks() -> None:
    queries = draw({"a": pairs_of("a", scenes=4), "b": pairs_of("b", scenes=5)})
    assert [query.index for query in queries] == list(range(9))


def test_queries_visit_every_scene_before_any_scene_twice() -> None:
    queries = draw({"a": pairs_of("a", scenes=6, views=4)}, queries_per_task=9)
    visits = Counter(query.pair.scene for query in queries)
    assert len(queries) == 9
    assert sorted(visits.values()) == [1, 1, 1, 2, 2, 2]
    assert len({query.pair.key for query in queries}) == 9


def test_the_order_of_the_index_does_not_matter_and_the_seed_does() -> None:
    pairs = pairs_of("a", scenes=12)
    drawn = draw({"a": pairs}, queries_per_task=5)
    assert draw({"a": pairs[::-1]}, queries_per_task=5) == drawn
    assert draw({"a": pairs}, queries_per_task=5, seed=1) != drawn


def test_contexts_differ_from_query_to_query() -> None:
    queries = draw({"a": pairs_of("a", scenes=20)})
    assert len({query.context for query in queries}) > 10


def test_all_tasks_are_asked_about_the_same_scenes() -> None:
    queries = draw({"a": pairs_of("a", scenes=20), "b": pairs_of("b", scenes=20)}, queries_per_task=4)
    assert [query.pair.scene for query in queries[:4]] == [query.pair.scene for query in queries[4:]]


@pytest.mark.parametrize("scenes", [0, 1, 2])
def test_too_few_scenes_for_a_query_and_its_context_are_refused_by_name(scenes: int) -> None:
    with pytest.raises(InputError, match=rf"task few has {2 * scenes} held-out pairs in {scenes} scenes.*num_pairs.*at least 3 scenes"):
        draw({"many": pairs_of("many", scenes=9), "few": pairs_of("few", scenes=scenes, views=2)})
