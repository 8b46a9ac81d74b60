"""Which held-out pairs are asked about, and which are shown with each: decided by hashes of names, so nothing else moves them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from lavin_dit.data.shards.shard_set import Pair
from lavin_dit.errors import InputError


@dataclass(frozen=True)
class Query:
    """One question to the model: the pair whose input it sees, and the pairs that show it the task. All scenes differ.

    `index` counts all queries of an evaluation; it selects the starting noise.
    """

    task: str
    pair: Pair
    context: tuple[Pair, ...]
    index: int


def draw_queries(pairs_by_task: dict[str, Sequence[Pair]], *, queries_per_task: int, num_pairs: int, seed: int) -> list[Query]:
    """Up to `queries_per_task` queries a task, spread over its scenes, each with context pairs from `num_pairs` other scenes.

    Raises: InputError naming the task that has too few scenes for a query and its context.
    """
    queries: list[Query] = []
    for task, pairs in pairs_by_task.items():
        scenes = _by_scene(pairs, seed)
        if len(scenes) <= num_pairs:
            raise InputError(
                f"task {task} has {len(pairs)} held-out pairs in {len(scenes)} scenes: a query and its context of {num_pairs} "
                f"(evaluate.sampling.num_pairs) need pairs in at least {num_pairs + 1} scenes"
            )
        of_source = _by_source(pairs, seed)
        for pair in _spread(scenes)[:queries_per_task]:
            own = of_source[pair.source]
            context = _context(pair, own if len(own) > num_pairs else scenes, num_pairs, seed)
            queries.append(Query(task, pair, context, index=len(queries)))
    return queries


def _by_source(pairs: Iterable[Pair], seed: int) -> dict[str, dict[str, list[Pair]]]:
    """Scenes by source: what a colour means differs between sources, so a query is shown pairs of its own while that has enough."""
    found: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        found[pair.source].append(pair)
    return {source: _by_scene(own, seed) for source, own in found.items()}


def _by_scene(pairs: Iterable[Pair], seed: int) -> dict[str, list[Pair]]:
    """Pairs by scene, scenes in the seed's order: the same for every task, so that tasks are asked about the same scenes."""
    scenes: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        scenes[pair.scene].append(pair)
    return {scene: scenes[scene] for scene in sorted(scenes, key=lambda scene: _rank(seed, scene))}


def _spread(scenes: dict[str, list[Pair]]) -> list[Pair]:
    """One pair of every scene, then another of those that have more, and so on."""
    rounds = zip_longest(*scenes.values())
    return [pair for pair in chain.from_iterable(rounds) if pair is not None]


def _context(query: Pair, scenes: dict[str, list[Pair]], num_pairs: int, seed: int) -> tuple[Pair, ...]:
    others = sorted((scene for scene in scenes if scene != query.scene), key=lambda scene: _rank(seed, query.key, scene))
    return tuple(min(scenes[scene], key=lambda pair: _rank(seed, query.key, pair.key)) for scene in others[:num_pairs])


def _rank(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
