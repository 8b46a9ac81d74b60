"""Reading pairs in training's order: raw and decoded, beside webdataset and loose files on the same pictures; then a set of a million."""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lavin_dit.data.reading.loading import PictureLoader
from lavin_dit.data.reading.order import sample_at
from lavin_dit.data.reading.shard_windows import ShardWindows
from lavin_dit.data.shards.column_files import write_columns
from lavin_dit.data.shards.index import INDEX_OF_MEDIUM, ShardIndex
from lavin_dit.data.shards.shard_set import Member, Pair, ShardSet, write_manifest
from lavin_dit.data.shards.tars import TarReader
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair

SIDE, TASK, BATCH, REPEATS = 256, "denoising", 32, 3
SHARD_BYTES = 32 * 2**20
NUM_SHARDS, PAIRS_OF_SHARD = 1000, 1000
WINDOW_SHARDS = 16
NUM_THREADS = 2

Picture = NDArray[np.uint8]


def picture(random: np.random.Generator) -> Picture:
    """As many bytes as a photograph of its size takes: smooth, with a little noise."""
    small = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (np.asarray(small, np.int16) + random.integers(-2, 3, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def write_set(folder: Path, num_pairs: int) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", num_pairs), ("test", 1)):
        with ShardWriter(folder, split, SHARD_BYTES, photo_format="jpeg") as writer:
            for number in range(count):
                writer.add(f"{number:07d}", {TASK: ImagePair(picture(random), picture(random))})
    write_manifest(folder, resolution=SIDE, clip_frames=1)
    return folder


def shuffled(pairs: Sequence[Pair]) -> Iterator[Pair]:
    return (pairs[sample_at(position, len(pairs), seed=0)] for position in range(len(pairs)))


def batches(members: Iterator[Member]) -> Iterator[list[Member]]:
    while batch := list(islice(members, 2 * BATCH)):
        yield batch


@dataclass(frozen=True)
class Rate:
    """Pairs a second, by the clock and of processor time, which other work on the machine leaves alone."""

    clock: float
    processor: float


def measure_rates(readers: Mapping[str, Callable[[], int]], num_pairs: int) -> dict[str, Rate]:
    """The best of a few rounds in which every reader has its turn; each gives its number of pictures, so that none leaves any out."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(REPEATS):
        for name, read in readers.items():
            clock, processor = time.perf_counter(), time.process_time()
            assert read() == 2 * num_pairs
            times[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {name: Rate(*(num_pairs / min(column) for column in zip(*pairs, strict=True))) for name, pairs in times.items()}


def measure_readers(home: Path, num_pairs: int) -> None:
    folder = write_set(home / "shards", num_pairs)
    with ShardSet(folder, "train") as shards, PictureLoader(shards, num_threads=NUM_THREADS) as loader:
        # Whoever writes the loose files has read every picture once.
        reader = TarReader(lambda shard: shards.folder / shard)
        loose = write_loose(home / "loose", shards, reader)
        contents = [path.read_bytes() for path in loose]
        urls = sorted(map(str, shards.folder.glob("*.tar")))

        def members() -> Iterator[Member]:
            return (member for pair in shuffled(shards.pairs) for member in pair.input + pair.target)

        raw = {
            "shards, first epoch": lambda: read_all(TarReader(lambda shard: shards.folder / shard), members()),
            "shards, later epochs": lambda: read_all(reader, members()),
            "webdataset": lambda: sum(_num_pictures(sample) for sample in stream(urls)),
            "loose files": lambda: sum(len(path.read_bytes()) > 0 for path in loose),
        }
        decoded = {
            "decoding alone": lambda: sum(_count(decode(content)) for content in contents),
            f"shards, {NUM_THREADS} threads": lambda: sum(len(loader.pictures(batch)) for batch in batches(members())),
            "shards, one thread": lambda: sum(_count(shards.image(member)) for member in members()),
            "webdataset": lambda: sum(_num_pictures(sample) for sample in stream(urls).decode("rgb8")),
            "loose files": lambda: sum(_count(decode(path.read_bytes())) for path in loose),
        }
        print(f"{num_pairs} pairs of {SIDE} px JPEG, {sum(map(len, contents)) / len(contents) / 1e3:.0f} KB each")
        show("raw", measure_rates(raw, num_pairs), "webdataset")
        show("decoded", measure_rates(decoded, num_pairs), "decoding alone")


def read_all(reader: TarReader, members: Iterator[Member]) -> int:
    return sum(len(reader.content(member)) > 0 for member in members)


def show(title: str, rates: Mapping[str, Rate], against: str) -> None:
    print(f"{title}, against {against}")
    for name, rate in rates.items():
        by_clock, by_processor = rate.clock / rates[against].clock, rate.processor / rates[against].processor
        clock, processor = f"{rate.clock:7.0f}/s   {by_clock:5.2f} times", f"{rate.processor:7.0f}/CPU s   {by_processor:5.2f} times"
        print(f"  {name:24s} {clock}   {processor}")


def _count(picture: Picture) -> int:
    assert picture.shape == (SIDE, SIDE, 3)
    return 1


def stream(urls: list[str]) -> Any:
    # It imports torch, which a start does not need.
    import webdataset  # type: ignore[import-untyped]

    return webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)


def _num_pictures(sample: dict[str, object]) -> int:
    return sum(name.endswith(".jpg") for name in sample)


def decode(content: bytes) -> Picture:
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened.convert("RGB"))


def write_loose(folder: Path, shards: ShardSet, reader: TarReader) -> list[Path]:
    folder.mkdir()
    paths = []
    for pair in shuffled(shards.pairs):
        for role, (member,) in (("input", pair.input), ("target", pair.target)):
            paths.append(folder / f"{pair.scene}_{role}.jpg")
            paths[-1].write_bytes(reader.content(member))
    return paths


def write_million(home: Path) -> Path:
    """A thousand shards that are one file, each with a thousand pairs of its own in the index."""
    one = write_small_shard(home / "one")
    folder = home / "million"
    shutil.copytree(one / "test", folder / "test")
    (folder / "train").mkdir(parents=True)
    index = ShardIndex(one / "train" / INDEX_OF_MEDIUM["image"])
    names = [f"shard-{number:05d}.tar" for number in range(NUM_SHARDS)]
    for name in names:
        (folder / "train" / name).hardlink_to(one / "train" / index.shards[0])
    columns = index.columns
    steps = {"name_ends": len(columns["names"]), "sample_shards": 1, "member_ends": index.num_members}
    steps |= {"pair_samples": index.num_samples, "pair_members": index.num_members}
    repeated = {
        name: np.concatenate([column + column.dtype.type(steps.get(name, 0) * k) for k in range(NUM_SHARDS)])
        for name, column in columns.items()
    }
    (group,) = index.groups
    write_columns(
        folder / "train" / INDEX_OF_MEDIUM["image"],
        repeated,
        {"groups": [[group.task, group.source, len(group.rows) * NUM_SHARDS]], "shards": names},
    )
    write_manifest(folder, resolution=16, clip_frames=1, sha256={f"train/{name}": "0" * 64 for name in names})
    return folder


def write_small_shard(folder: Path) -> Path:
    random = np.random.default_rng(1)
    for split, count in (("train", PAIRS_OF_SHARD), ("test", 1)):
        with ShardWriter(folder, split, 2**30) as writer:
            for number in range(count):
                pictures = random.integers(0, 256, (2, 16, 16, 3), np.uint8)
                writer.add(f"{number:07d}", {TASK: ImagePair(*pictures)})
    write_manifest(folder, resolution=16, clip_frames=1)
    return folder


def first_batch(folder: Path) -> None:
    started = time.perf_counter()
    with ShardSet(folder, "train") as shards:
        pictures = ShardWindows(shards, window_shards=WINDOW_SHARDS, seed=0).pictures
        for position in range(BATCH):
            shards.image(pictures.at(position))
    print(f"opening {NUM_SHARDS} shards, to the first batch: {time.perf_counter() - started:.2f} s")


def measure_million(home: Path) -> None:
    """Each in a process of its own."""
    folder = write_million(home)
    started = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--first-batch", str(folder)], check=True)
    print(f"the same with the process's own start: {time.perf_counter() - started:.2f} s")
    subprocess.run([sys.executable, __file__, "--epoch", str(folder)], check=True)


def walk_epoch(folder: Path) -> None:
    """Every pair of an epoch is found, and one in a hundred pictures read."""
    with ShardSet(folder, "train") as shards:
        pictures, pairs = ShardWindows(shards, window_shards=WINDOW_SHARDS, seed=0).pictures, shards.pairs
        for position in range(len(pairs)):
            member = pictures.at(position)
            assert pairs[position].input
            if position % 100 == 0:
                shards.image(member)
            if position in (1000, len(pairs) // 10, len(pairs) // 2, len(pairs) - 1):
                print(
                    f"after {position + 1:7d} samples: {_memory_mib('RssAnon'):4.0f} MiB of its own, {_memory_mib('RssFile'):4.0f} mapped"
                )


def _memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--first-batch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--epoch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_batch:
        first_batch(arguments.first_batch)
    elif arguments.epoch:
        walk_epoch(arguments.epoch)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            measure_readers(Path(scratch), arguments.pairs)
            measure_million(Path(scratch))


if __name__ == "__main__":
    main()
