"""How fast a data set is made (rendered, encoded, written, packed) by one process and by two, and what it weighs.

Against: the same by one process, and every pair with pictures of its own.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components import prepare
from lavin_dit.config import PrepareConfig
from lavin_dit.data.preparing.making import Workshop
from lavin_dit.data.preparing.material import find_material
from lavin_dit.data.preparing.work import plan_work
from lavin_dit.data.preparing.workers import write_parts
from lavin_dit.data.shards.packing import pack
from lavin_dit.data.shards.shard_set import SPLITS, ShardSet
from lavin_dit.data.shards.tars import BLOCK
from lavin_dit.data.tasks import TASKS

EASY_TASKS = (
    "depth",
    "normals",
    "foreground",
    "semantic",
    "edges",
    "colorization",
    "inpainting",
    "denoising",
    "deblurring",
    "super_resolution",
)
IMAGE_TASKS = tuple(name for name, task in TASKS.items() if task.from_scene)
WORLDS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "10 tasks, easy world": (EASY_TASKS, 0.0),
    f"{len(IMAGE_TASKS)} tasks, whole world": (IMAGE_TASKS, 1.0),
}
"""Tasks and difficulty."""


def section(tasks: tuple[str, ...], difficulty: float, *, resolution: int, scenes: int, photo_format: str = "png") -> PrepareConfig:
    return PrepareConfig.model_validate(
        {
            "seed": 0,
            "resolution": resolution,
            "clip_frames": 1,
            "tasks": tasks,
            "held_out_tasks": (),
            "sources": (),
            "difficulty": difficulty,
            "num_train_scenes": scenes,
            "num_test_scenes": 1,
            "num_train_clips": 0,
            "num_test_clips": 0,
            "test_fraction": 0.1,
            "shard_mib": 32.0,
            "max_megapixels": 64.0,
            "photo_format": photo_format,
            "on_bad": "stop",
        }
    )


@dataclass(frozen=True)
class Times:
    """Of making a data set, in seconds: by the clock, of that for packing, and of all processors."""

    whole_s: float
    packing_s: float
    busy_s: float


def make(config: PrepareConfig, num_workers: int) -> Times:
    with tempfile.TemporaryDirectory(prefix="lavin-") as name:
        folder = Path(name)
        workshop = Workshop(config, folder / "raw", folder)
        works = plan_work(config, find_material(config, folder / "raw"))
        started, busy_before_s = time.perf_counter(), busy_s()
        write_parts(workshop, works, num_workers=num_workers)
        written = time.perf_counter()
        files = [workshop.files_of(work) for work in works]
        pack(files, folder, stem="shard", index_name="index.safetensors", shard_bytes=int(config.shard_mib * prepare.MIB))
        ended = time.perf_counter()
        return Times(ended - started, ended - written, busy_s() - busy_before_s)


def busy_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_speed(name: str, config: PrepareConfig, repeats: int) -> None:
    scenes = config.num_train_scenes + config.num_test_scenes
    rounds = [(make(config, 1), make(config, 2)) for _ in range(repeats)]
    one, two = (statistics.median(scenes / times.whole_s for times in column) for column in zip(*rounds, strict=True))
    busy_ms = [statistics.median(times.busy_s / scenes * 1e3 for times in column) for column in zip(*rounds, strict=True)]
    packing = statistics.median(times.packing_s / times.whole_s for times, _ in rounds)
    speeds = f"{one:7.1f} scenes/s, 2 processes {two:7.1f} ({two / one:.2f}x)"
    work = f"{busy_ms[0]:.1f} ms of a processor a scene, with 2 {busy_ms[1]:.1f}"
    print(f"{name:28s} {config.resolution:4d} px: {speeds}, {work}, packing {packing:.1%} of the time")


def measure_size(name: str, config: PrepareConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="lavin-") as folder:
        shards_folder = Path(folder) / "shards"
        prepare.run(config, {"raw": Path(folder) / "raw"}, {"shards": shards_folder})
        stored = sum(path.stat().st_size for path in shards_folder.rglob("*") if path.is_file())
        apart = 0
        for split in SPLITS:
            with ShardSet(shards_folder, split) as shards:
                members = [member for pair in shards.pairs for member in pair.input + pair.target]
                apart += sum(BLOCK + -(-member.size // BLOCK) * BLOCK for member in members)
    per_scene = stored / (config.num_train_scenes + config.num_test_scenes) / 1024
    sizes = f"{per_scene:7.1f} KiB a scene, {apart / stored:.2f}x if each pair had its own"
    print(f"{name:28s} {config.resolution:4d} px, {config.photo_format:4s}: {sizes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=1024)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for name, (tasks, difficulty) in WORLDS.items():
        measure_speed(name, section(tasks, difficulty, resolution=options.resolution, scenes=options.scenes), options.repeats)
    for name, (tasks, difficulty) in WORLDS.items():
        for photo_format in ("png", "webp", "jpeg"):
            scenes = min(options.scenes, 64)
            measure_size(name, section(tasks, difficulty, resolution=options.resolution, scenes=scenes, photo_format=photo_format))


if __name__ == "__main__":
    main()
