"""What more example pairs buy where one pair tells a part of the task: segmentation, every episode with a palette of its own.

A palette gives each class one of eight colours. Every source has a palette, and an episode's pairs come from one source; a scene shows some
of the classes, so that further pairs tell colours that the first does not. What is asked is the picture, whose shapes must be recognised
first, or (`--query labels`) its classes in fixed colours, of which only the new colours are left to learn. Prints two Markdown tables over
the number of pairs, both of palettes and scenes that training never drew: the loss, and the accuracy of the query's pixels by which pair
first tells their class. By default it only shows that everything runs; docs/LOG.md says with how many steps its tables were made.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray

from components import train_dit, train_vae
from components.study import resize
from lavin_dit.config import Config, load_config
from lavin_dit.data.drawings.palette import PALETTE, nearest_colour
from lavin_dit.data.shards.shard_set import ShardSet, write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair
from lavin_dit.data.world.layout import EASY
from lavin_dit.data.world.scenes import Scene, render_scene
from lavin_dit.evaluation.answers import Answers, Model, Question, ask, in_batches
from lavin_dit.evaluation.queries import draw_queries
from lavin_dit.evaluation.trends import ByScene, difference, estimate
from lavin_dit.inference import to_pixels
from lavin_dit.training.processes import join_processes
from lavin_dit.weights import load_dit, load_vae

RECIPE = Path(__file__).parents[1] / "recipes" / "laptop.yaml"
TASK, SEED = "semantic", 0
COLOURS = PALETTE[:8]
"""What palettes are drawn from, without repeats."""
NUM_PAIRS = (1, 2, 4)
SCENES_OF_PALETTE = 6
NUM_TEST_SCENES, NUM_TEST_PALETTES = 120, 60
TOLD_PIXELS = 20
"""Pixels of a class from which on a pair tells its colour."""
TELLERS = ("every pair", "pair 1, not all", "pair 2", "pair 3 or 4", "none of the four")
"""Which pair first shows a class. Sky and ground are in every picture, so nearly all else are shapes."""
LATER = 2
"""Of `TELLERS`, the first that pair 1 is not."""


@dataclass(frozen=True)
class Scores:
    """One query's answer with some number of pairs.

    Shapes: is_right, is_reachable (by the ST-VAE alone) and teller, an index of `TELLERS`, are the query's `(h, w)`.
    """

    palette: str
    loss: float
    is_right: NDArray[np.bool_]
    is_reachable: NDArray[np.bool_]
    teller: NDArray[np.intp]


def write_split(folder: Path, split: str, scenes: Sequence[Scene], num_palettes: int, *, shows_labels: bool) -> None:
    """Each palette is a source, on its own choice of the scenes."""
    random = np.random.default_rng([SEED, split == "test"])
    with ShardWriter(folder, split, shard_bytes=2**25) as writer:
        for number in range(num_palettes):
            palette = random.permutation(COLOURS)
            for index in random.choice(len(scenes), SCENES_OF_PALETTE, replace=False):
                scene = scenes[index]
                pair = ImagePair(COLOURS[scene.classes] if shows_labels else scene.rgb, palette[scene.classes])
                name = f"{split}-palette-{number:04d}"
                writer.add(f"{name}-scene-{index:05d}", {TASK: pair}, source=name)


def write_shards(folder: Path, resolution: int, *, num_scenes: int, num_palettes: int, shows_labels: bool) -> None:
    scenes = [render_scene(SEED, index, resolution, world=EASY) for index in range(num_scenes + NUM_TEST_SCENES)]
    write_split(folder, "train", scenes[:num_scenes], num_palettes, shows_labels=shows_labels)
    write_split(folder, "test", scenes[num_scenes:], NUM_TEST_PALETTES, shows_labels=shows_labels)
    write_manifest(folder, resolution=resolution, clip_frames=1)


def tellers(truth: NDArray[np.uint8], context: Sequence[NDArray[np.uint8]]) -> NDArray[np.intp]:
    """Which of `TELLERS` tells the class of each pixel; pictures hold colours' numbers. Shapes: all `(h, w)`."""
    shows = np.stack([np.bincount(picture.ravel(), minlength=len(COLOURS)) >= TOLD_PIXELS for picture in context])
    first = np.where(shows.any(axis=0), 1 + np.minimum(shows.argmax(axis=0), 2), len(TELLERS) - 1)
    return np.where(shows.all(axis=0), 0, first)[truth]


def score(question: Question, context: Sequence[NDArray[np.uint8]], answers: Answers, row: int) -> Scores:
    truth = nearest_colour(question.truth, COLOURS)
    read, through_vae = (
        nearest_colour(to_pixels(each[row]).reshape(question.truth.shape), COLOURS)
        for each in (answers.predictions, answers.reconstructions)
    )
    return Scores(question.query.pair.source, float(answers.losses[row]), read == truth, through_vae == truth, tellers(truth, context))


def measure(config: Config, shards: ShardSet, vae: Path, dit: Path, device: torch.device) -> dict[int, list[Scores]]:
    """The same queries, scenes and noise with every number of pairs; a query's first pairs stay as more are added."""
    pairs = {TASK: shards.pairs_of(TASK)}
    queries = {
        count: draw_queries(pairs, queries_per_task=config.evaluate.queries_per_task, num_pairs=count, seed=SEED) for count in NUM_PAIRS
    }
    contexts = [[nearest_colour(shards.image(pair.target[0]), COLOURS) for pair in query.context] for query in queries[max(NUM_PAIRS)]]
    found = dict[int, list[Scores]]()
    trained, network = load_vae(vae), load_dit(dit).to(device)
    trained.module.to(device)
    for count in NUM_PAIRS:
        sampling = config.evaluate.sampling.model_copy(update={"num_pairs": count})
        model = Model(trained, network, config.evaluate.model_copy(update={"sampling": sampling}), device)
        found[count] = []
        for batch in in_batches(queries[count], config.evaluate.batch_size):
            questions = [ask(query, shards) for query in batch]
            answers = model.answer(questions)
            found[count] += [score(each, contexts[each.query.index], answers, row) for row, each in enumerate(questions)]
    return found


def by_palette(values: Iterable[tuple[str, float]]) -> ByScene:
    """Queries of a palette share their context: what is averaged and compared is a palette."""
    found: dict[str, list[float]] = {}
    for palette, value in values:
        found.setdefault(palette, []).append(value)
    return {palette: mean(each) for palette, each in found.items()}


def accuracy(scores: Iterable[Scores], teller: int, of: str = "is_right") -> ByScene:
    """Share of right pixels among those of one teller, over a palette's queries that have some."""
    return by_palette(
        (each.palette, float(getattr(each, of)[each.teller == teller].mean())) for each in scores if (each.teller == teller).any()
    )


def cells(series: Sequence[ByScene], decimals: int) -> list[str]:
    """Each mean, and how much it differs from the one before with the half of its 95 % interval."""
    steps = ["", *(f" ({each.mean:+.{decimals}f} ± {each.reach:.{decimals}f})" for each in map(difference, series, series[1:]))]
    return [f"{estimate(values).mean:.{decimals}f}{step}" for values, step in zip(series, steps, strict=True)]


def print_row(row: Iterable[str]) -> None:
    print("| " + " | ".join(row) + " |", flush=True)


def print_head(*names: str) -> None:
    print_row(names)
    print_row("---" for _ in names)


def print_tables(found: dict[int, list[Scores]]) -> None:
    pairs = [f"{count} pairs" for count in NUM_PAIRS]
    print_head("loss of queries whose classes", "queries", *pairs)
    leaves_some = [int((each.teller >= LATER).sum()) >= TOLD_PIXELS for each in found[1]]
    for title, chosen in (("pair 1 tells all", False), ("pair 1 tells in part", True)):
        series = [
            by_palette((each.palette, each.loss) for each, leaves in zip(found[count], leaves_some, strict=True) if leaves == chosen)
            for count in NUM_PAIRS
        ]
        print_row([title, str(leaves_some.count(chosen)), *cells(series, 4)])
    print()
    print_head("accuracy of pixels whose class is first told by", "share", *pairs, "ST-VAE alone")
    for number, teller in enumerate(TELLERS):
        share = float(np.mean([each.teller == number for each in found[1]]))
        series = [accuracy(found[count], number) for count in NUM_PAIRS]
        ceiling = estimate(accuracy(found[1], number, "is_reachable")).mean
        print_row([teller, f"{share:.3f}", *cells(series, 3), f"{ceiling:.3f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="of the J-DiT")
    parser.add_argument("--palettes", type=int, default=20, help="that training draws from")
    parser.add_argument("--scenes", type=int, default=50, help="that training draws from")
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("--query", choices=("picture", "labels"), default="picture", help="what is asked")
    parser.add_argument("--size", metavar="DEPTHxWIDTH", help="of the J-DiT (default: the laptop's)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="overrides one value of the laptop recipe")
    parser.add_argument("--vae", type=Path, help="a trained one; else one is trained on these pictures")
    parser.add_argument("--vae-steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="keeps what was trained")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    steps = {"train_dit": arguments.steps, "train_vae": arguments.vae_steps}
    overrides = [
        f"{name}.{key}={value}"
        for name, count in steps.items()
        for key, value in (("steps", count), ("optimizer.warmup_steps", min(50, count // 4)))
    ]
    overrides += [
        f"train_dit.max_pairs={max(NUM_PAIRS)}",
        "train_dit.prompt_drop_probability=0",
        f"evaluate.queries_per_task={arguments.queries}",
        *arguments.set,
    ]
    config = load_config(RECIPE, overrides)
    training = resize(config.train_dit, arguments.size) if arguments.size else config.train_dit
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        shards, vae, dit = folder / "shards", arguments.vae or folder / "vae", folder / "dit"
        write_shards(
            shards,
            config.prepare.resolution,
            num_scenes=arguments.scenes,
            num_palettes=arguments.palettes,
            shows_labels=arguments.query == "labels",
        )
        if not arguments.vae:
            train_vae.run(config.train_vae, {"shards": shards}, {"vae": vae})
        train_dit.run(training, {"shards": shards, "vae": vae}, {"dit": dit})
        with join_processes() as processes, ShardSet(shards, "test") as held_out:
            print_tables(measure(config, held_out, vae, dit, processes.device))


if __name__ == "__main__":
    main()
