import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components import prepare
from components.steps import load_step
from lavin_dit.config import PrepareConfig
from lavin_dit.data.clips import render_clip
from lavin_dit.data.scenes import render_scene
from lavin_dit.data.shards import ShardSet, verify_shards
from lavin_dit.data.tasks import TASKS
from lavin_dit.errors import InputError

SECTION: dict[str, Any] = {
    "seed": 0,
    "resolution": 16,
    "clip_frames": 1,
    "tasks": tuple(TASKS),
    "held_out_tasks": (),
    "sources": (),
    "difficulty": 0.0,
    "num_train_scenes": 4,
    "num_test_scenes": 2,
    "num_train_clips": 0,
    "num_test_clips": 0,
    "test_fraction": 0.25,
    "shard_mib": 0.02,
    "max_megapixels": 1.0,
    "photo_format": "png",
    "on_bad": "stop",
}


def run(tmp_path: Path, name: str = "shards", **changes: Any) -> Path:
    output = tmp_path / name
    prepare.run(PrepareConfig(**{**SECTION, **changes}), {"raw": tmp_path / "raw"}, {"shards": output})
    return output


def put(path: Path, number: int = 0, size: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render_scene(9, number, size).rgb).save(path)
    return path


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def tasks_of(folder: Path) -> dict[str, dict[str, int]]:
    tasks: dict[str, dict[str, int]] = json.loads((folder / "manifest.json").read_text())["tasks"]
    return tasks


def test_the_step_says_what_it_reads_and_writes() -> None:
    step = load_step("prepare")
    assert (step.inputs, step.outputs) == (("raw",), ("shards",))


def test_rendered_scenes_alone_fill_every_task(tmp_path: Path) -> None:
    folder = run(tmp_path)
    verify_shards(folder)
    assert tasks_of(folder) == {task: {"train": 4, "test": 2} for task in TASKS}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == {"pairs": {"train": 40, "test": 20}, "tasks": tasks_of(folder)}
    assert json.loads((folder / "config.json").read_text())["num_train_scenes"] == 4
    with ShardSet(folder, "train") as shards:
        for task in TASKS:
            pictures = [shards.image(member) for pair in shards.pairs_of(task) for member in pair.input + pair.target]
            assert {picture.shape for picture in pictures} == {(16, 16, 3)}
        np.testing.assert_array_equal(shards.image(shards.pairs_of("depth")[0].input[0]), render_scene(0, 0, 16).rgb)


def test_no_scene_is_in_both_splits_and_more_of_one_leaves_the_other(tmp_path: Path) -> None:
    with ShardSet(run(tmp_path), "train") as train, ShardSet(tmp_path / "shards", "test") as test:
        assert not {pair.scene for pair in train.pairs} & {pair.scene for pair in test.pairs}
        held_out = [(pair.key, pair.input[0].sha256) for pair in test.pairs]
    with ShardSet(run(tmp_path, "more", num_train_scenes=7), "test") as test:
        assert [(pair.key, pair.input[0].sha256) for pair in test.pairs] == held_out


def test_the_same_parameters_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    put(tmp_path / "raw" / "photos" / "a.png")
    first = hashes(run(tmp_path, "one"))
    assert hashes(run(tmp_path, "two")) == first
    assert hashes(run(tmp_path, "three", seed=1))["manifest.json"] != first["manifest.json"]


def test_photographs_feed_the_restoration_tasks_among_those_asked_for(tmp_path: Path) -> None:
    for number in range(8):
        put(tmp_path / "raw" / "photos" / "holiday" / f"{number}.jpg", number)
    folder = run(tmp_path, tasks=("denoising", "depth", "colorization"), num_train_scenes=1, num_test_scenes=0)
    counts = tasks_of(folder)
    assert counts["depth"] == {"train": 1, "test": 0}
    assert counts["denoising"] == counts["colorization"]
    assert sum(counts["denoising"].values()) == 9
    assert counts["denoising"]["test"] >= 1
    with ShardSet(folder, "test") as shards:
        assert {pair.scene for pair in shards.pairs_of("denoising")} == {pair.scene for pair in shards.pairs_of("colorization")}


def test_photographs_alone_are_enough_for_restoration_but_not_for_depth(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / "raw" / "photos" / f"{number}.png", number)
    folder = run(tmp_path, tasks=("deblurring",), num_train_scenes=0, num_test_scenes=0)
    assert sum(tasks_of(folder)["deblurring"].values()) == 4
    with pytest.raises(
        InputError, match=r"^depth: has no training pairs: set prepare\.num_train_scenes above 0 or fill .*raw/depth/train$"
    ):
        run(tmp_path, tasks=("deblurring", "depth"), num_train_scenes=0, num_test_scenes=0)


def test_photographs_that_no_task_uses_are_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "raw" / "photos" / "a.png")
    with caplog.at_level(logging.WARNING, logger="components.prepare"):
        run(tmp_path, tasks=("depth",))
    assert [record.getMessage() for record in caplog.records] == [
        "photos: none of prepare.tasks is derived from photographs, they are left out"
    ]


def test_pair_folders_join_a_known_task_and_bring_their_own(tmp_path: Path) -> None:
    for task, split in (("depth", "train"), ("mine", "train"), ("mine", "test")):
        for role in ("input", "target"):
            put(tmp_path / "raw" / task / split / f"a_{role}.png")
    assert tasks_of(run(tmp_path, tasks=("depth", "edges"))) == {
        "depth": {"train": 5, "test": 2},
        "edges": {"train": 4, "test": 2},
        "mine": {"train": 1, "test": 1},
    }


def test_clips_lie_beside_the_pairs_a_member_a_frame_and_leave_the_pairs_as_they_are(tmp_path: Path) -> None:
    still = hashes(run(tmp_path, "still"))
    folder = run(tmp_path, clip_frames=5, num_train_clips=3, num_test_clips=2)
    assert {**still, **hashes(folder)}.keys() - still.keys() == {
        "test/clips-00000.tar",
        "test/clips.json",
        *(f"train/clips-{number:05d}.tar" for number in range(len(list(folder.glob("train/clips-*.tar"))))),
        "train/clips.json",
    }
    for name, digest in hashes(folder).items():
        if name in still and name not in ("config.json", "metrics.json", "manifest.json"):
            assert digest == still[name]
    verify_shards(folder)
    assert json.loads((folder / "metrics.json").read_text())["clips"] == {"train": 3, "test": 2}
    with ShardSet(folder, "train") as train, ShardSet(folder, "test") as test:
        assert (train.clip_frames, len(train.clips), len(test.clips)) == (5, 3, 2)
        assert not {clip.scene for clip in train.clips} & {clip.scene for clip in test.clips}
        for index, clip in zip((0, 2, 4), train.clips, strict=True):
            frames = np.stack([train.image(member) for member in clip.frames])
            np.testing.assert_array_equal(frames, render_clip(0, index, 16, num_frames=5))
    names = []
    for path in sorted(folder.glob("test/clips-*.tar")):
        with tarfile.open(path) as archive:
            names += archive.getnames()
    assert names == [f"clip-{index:07d}.input.{frame:03d}.png" for index in (1, 3) for frame in range(5)]


def test_the_same_parameters_give_the_same_clips(tmp_path: Path) -> None:
    clips = {"clip_frames": 5, "num_train_clips": 2, "num_test_clips": 1}
    assert hashes(run(tmp_path, "one", **clips)) == hashes(run(tmp_path, "two", **clips))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_frames": 5}, r"clip_frames is 5: needs num_train_clips or num_test_clips above 0; use 1 for images"),
        ({"num_train_clips": 2}, r"clip_frames is 1: must be 1 \+ 4k with k above 0 \(5, 9, 13 \.\.\.\) where num_train_clips"),
    ],
)
def test_frames_without_clips_and_clips_without_frames_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrepareConfig(**{**SECTION, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("depth", "flying", "hovering")}, r"^prepare\.tasks names flying, hovering: the tasks known are depth, normals, .*"),
        (
            {"num_train_scenes": 0, "num_test_scenes": 0},
            r"raw: holds no pairs and no photographs, and prepare\.num_train_scenes is 0: there is nothing to learn from$",
        ),
    ],
)
def test_parameters_that_cannot_be_prepared_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_file_leaves_the_last_good_output_as_it_is_and_mending_it_ends_right(tmp_path: Path) -> None:
    photo = put(tmp_path / "raw" / "photos" / "a.png")
    before = hashes(run(tmp_path))
    content = photo.read_bytes()
    photo.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"photos/a\.png: cannot be read as an image"):
        run(tmp_path)
    assert hashes(tmp_path / "shards") == before
    photo.write_bytes(content)
    assert hashes(run(tmp_path)) == before


def test_more_megapixels_than_allowed_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "raw" / "photos" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: is 24x24 .*: prepare\.max_megapixels allows 0\.0001$"):
        run(tmp_path, max_megapixels=0.0001)


def command(tmp_path: Path, output: str) -> list[str]:
    section = tmp_path / "section.json"
    section.write_text(json.dumps({**SECTION, "num_train_scenes": 150}))
    folders = ["--input", f"raw={tmp_path / 'raw'}", "--output", f"shards={tmp_path / output}"]
    return [sys.executable, "-m", "components", "prepare", "--section", str(section), *folders]


def start(tmp_path: Path, output: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(tmp_path, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


@pytest.mark.parametrize("moment", ["train/shard-00000.tar", "train/shard-00005.tar"])
def test_killed_in_the_middle_it_leaves_no_output_and_a_rerun_ends_with_the_same_bytes(tmp_path: Path, moment: str) -> None:
    put(tmp_path / "raw" / "photos" / "a.png")
    process = start(tmp_path, "shards")
    wait_for(tmp_path / ".shards.partial" / moment, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "shards").exists()
    for output in ("shards", "undisturbed"):
        again = start(tmp_path, output)
        _, errors = again.communicate()
        assert again.returncode == 0, errors
    assert hashes(tmp_path / "shards") == hashes(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".*.partial*"))


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "raw" / "depth" / "train" / "a_input.png"
    put(path)
    process = start(tmp_path, "shards")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors == f"lavin: error: {path}: has no target: a_target.<ext> is missing\n"


def test_a_tar_of_pairs_gives_the_bytes_of_a_folder_of_them(tmp_path: Path) -> None:
    for role in ("input", "target"):
        put(tmp_path / "raw" / "mine" / "train" / f"a_{role}.png")
    before = hashes(run(tmp_path))
    with tarfile.open(tmp_path / "raw" / "mine" / "train" / "x.tar", "w:") as archive:
        for role in ("input", "target"):
            path = tmp_path / "raw" / "mine" / "train" / f"a_{role}.png"
            header = tarfile.TarInfo(path.name)
            header.size = path.stat().st_size
            archive.addfile(header, io.BytesIO(path.read_bytes()))
            path.unlink()
    assert hashes(run(tmp_path)) == before
