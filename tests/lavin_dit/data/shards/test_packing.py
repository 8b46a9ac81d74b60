from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavin_dit.data.shards.packing import pack
from lavin_dit.data.shards.parts import PartFiles, PartWriter, is_finished
from lavin_dit.data.shards.samples import Sample
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair
from lavin_dit.errors import InputError

NUM_SAMPLES = 9


def sample(number: int) -> Sample:
    """Some of each of three tasks, from two sources, of very different sizes."""
    random = np.random.default_rng(number)
    pictures = [random.integers(0, 1 + 255 * (number % 3), (16, 16, 3)).astype(np.uint8) for _ in range(4)]
    tasks = ("edges", "depth", "albedo")[: 1 + number % 3]
    pairs = {task: ImagePair(pictures[0], target) for task, target in zip(tasks, pictures[1:], strict=False)}
    return Sample(f"scene-{number}", ("scenes", "photos")[number % 2], pairs)


def write_parts(folder: Path, cuts: Sequence[int]) -> list[PartFiles]:
    bounds = [0, *sorted(cuts), NUM_SAMPLES]
    parts = [PartFiles(folder, f"part-{number}") for number in range(len(bounds) - 1)]
    for files, first, last in zip(parts, bounds, bounds[1:], strict=False):
        with PartWriter(files, num_frames=1, photo_format="png") as writer:
            for number in range(first, last):
                writer.add(sample(number))
    return parts


def write_at_once(folder: Path, shard_bytes: int) -> None:
    with ShardWriter(folder, "train", shard_bytes) as writer:
        for number in range(NUM_SAMPLES):
            whole = sample(number)
            writer.add(whole.name, whole.pairs, source=whole.source)


def pack_all(parts: Sequence[PartFiles], folder: Path, shard_bytes: int) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    return pack(parts, folder, stem="shard", index_name="index.safetensors", shard_bytes=shard_bytes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, NUM_SAMPLES), max_size=5), shard_bytes=st.sampled_from([1, 8_000, 20_000, 10**6]))
def test_parts_pack_to_the_same_bytes_wherever_they_were_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], shard_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("packing")
    write_at_once(folder, shard_bytes)
    pack_all(write_parts(folder, cuts), folder / "packed", shard_bytes)
    assert contents(folder / "packed") == contents(folder / "train")


def test_packing_uses_the_parts_up_and_they_count_as_finished(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, [4])
    hashes = pack_all(parts, tmp_path / "packed", 8_000)
    assert set(hashes) == set(contents(tmp_path / "packed"))
    assert not any(files.body.exists() for files in parts)
    assert all(is_finished(files) for files in parts)


def test_packing_goes_on_after_the_last_whole_shard(tmp_path: Path) -> None:
    whole = pack_all(write_parts(tmp_path, [2, 4, 6]), tmp_path / "packed", 8_000)
    parts = write_parts(tmp_path, [2, 4, 6])
    last = tmp_path / "packed" / "shard-00003.tar"
    before = last.read_bytes()
    last.unlink()
    parts[0].body.unlink()
    assert pack_all(parts, tmp_path / "packed", 8_000) == whole
    assert last.read_bytes() == before


def test_a_part_that_was_cut_short_behind_our_back_is_refused(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, [4])
    parts[1].body.write_bytes(parts[1].body.read_bytes()[:-1])
    assert not is_finished(parts[1])
    with pytest.raises(InputError, match=r"part-1\.tar: is shorter than it was written; delete .* and run prepare again"):
        pack_all(parts, tmp_path / "packed", 10**6)


def test_a_part_that_fails_has_no_columns_and_is_not_finished(tmp_path: Path) -> None:
    files = PartFiles(tmp_path, "part")

    def fail() -> None:
        with PartWriter(files, num_frames=1, photo_format="png") as writer:
            writer.add(sample(0))
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not is_finished(files)
