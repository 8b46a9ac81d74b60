"""How fast scenes and clips are rendered with all their maps, in one process and in two, against the easy world in one.

Each figure is the median of several blocks; blocks of all worlds take turns, so that a drifting machine slows all of them alike.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from lavin_dit.data.world.clips import render_moving_scene
from lavin_dit.data.world.layout import EASY, World
from lavin_dit.data.world.scenes import render_scene

SEED = 0
WORLDS = {
    "easy": EASY,
    "easy, figures": World(figures=True),
    "half, figures": World(difficulty=0.5, figures=True),
    "hard, figures": World(difficulty=1.0, figures=True),
}
CLIP_FRAMES, CLIP_RESOLUTION = 17, 64


@dataclass(frozen=True)
class Work:
    """Numbers of scenes (or clips) to render."""

    first: int
    count: int
    resolution: int
    world: World


def render_scenes(work: Work) -> None:
    for index in range(work.first, work.first + work.count):
        render_scene(SEED, index, work.resolution, world=work.world)


def render_clips(work: Work) -> None:
    for index in range(work.first, work.first + work.count):
        render_moving_scene(SEED, index, work.resolution, num_frames=CLIP_FRAMES, world=work.world)


def rate(pool: ProcessPoolExecutor, processes: int, run: Callable[[Work], None], work: Work) -> float:
    """Scenes or clips a second, shared out among the processes."""
    share = work.count // processes
    parts = [Work(work.first + number * share, share, work.resolution, work.world) for number in range(processes)]
    started = time.perf_counter()
    list(pool.map(run, parts))
    return share * processes / (time.perf_counter() - started)


def measure(title: str, run: Callable[[Work], None], resolution: int, count: int, repeats: int) -> None:
    """Prints a line for each world."""
    rates: dict[tuple[str, int], list[float]] = {(name, processes): [] for name in WORLDS for processes in (1, 2)}
    for processes in (1, 2):
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for block in range(repeats + 1):
                for name, world in WORLDS.items():
                    measured = rate(pool, processes, run, Work(block * count, count, resolution, world))
                    rates[name, processes] += [measured] * (block > 0)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for name in WORLDS:
        one, two = medians[name, 1], medians[name, 2]
        print(f"{title} {name:14s} {one:7.1f}/s in one process   {two:7.1f}/s in two   {one / medians['easy', 1]:.2f} of the easy world")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the scenes in each block")
    options = parser.parse_args()
    # Known to the processes before they import numpy: several that fight for cores are slower than one thread each.
    os.environ["OMP_NUM_THREADS"] = "1"
    for resolution, count in ((64, 120), (256, 16)):
        measure(f"scenes {resolution:3d} px", render_scenes, resolution, max(2, round(count * options.share)), options.repeats)
    measure(f"clips   {CLIP_RESOLUTION} px", render_clips, CLIP_RESOLUTION, max(2, round(8 * options.share)), options.repeats)


if __name__ == "__main__":
    main()
