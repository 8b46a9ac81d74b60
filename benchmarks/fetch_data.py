"""Fetching tracked data from an S3 server on loopback, against `dvc get` of the same, its start and clone included: files a second."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from components.tracked_data import fetch, locate, recall, remember
from tests.s3_server import BUCKET, serve

REPEATS = 3
LAYOUTS = {"2000 files of 20 KB": (2000, 20_000), "10 files of 4 MB": (10, 4_000_000)}


def call(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tracked_repository(home: Path, count: int, size: int) -> Path:
    folder = home / "repository"
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    for number in range(count):
        (raw / f"{number}.bin").write_bytes(os.urandom(size))
    call(folder, "git", "init", "--quiet")
    call(folder, "dvc", "init", "--quiet")
    call(folder, "dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/{home.name}")
    call(folder, "dvc", "add", "data/raw")
    call(folder, "dvc", "push")
    call(folder, "git", "add", "--all")
    call(folder, "git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "--message=data")
    # dvc get would take it from there.
    shutil.rmtree(folder / ".dvc" / "cache")
    return folder


def median_s(run: Callable[[], None]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(name: str, count: int, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        home = Path(scratch)
        repository = tracked_repository(home, count, size)
        located = locate(str(repository), "HEAD", "data/raw")
        remember(located, home)

        def ours() -> None:
            shutil.rmtree(fetch(recall(located.md5, home), home))

        def dvcs() -> None:
            call(home, "dvc", "get", repository.as_uri(), "data/raw", "--out", "got", "--jobs", "16")
            shutil.rmtree(home / "got")

        own, theirs = median_s(ours), median_s(dvcs)
        print(f"{name:20s} fetch {count / own:6.0f} files/s   dvc get {count / theirs:6.0f} files/s   {theirs / own:.2f} times faster")


def main() -> None:
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="bench-s3-") as folder, serve(Path(folder)) as server:
        os.environ.update(server.environment)
        for name, (count, size) in LAYOUTS.items():
            measure(name, count, size)


if __name__ == "__main__":
    main()
