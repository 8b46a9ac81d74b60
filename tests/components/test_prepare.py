import hashlib
import io
import json
import logging
import multiprocessing
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
from lavin_dit.config import PrepareConfig, SourceConfig
from lavin_dit.data.preparing.making import Workshop, sample_name
from lavin_dit.data.preparing.material import find_material
from lavin_dit.data.preparing.work import plan_work
from lavin_dit.data.preparing.workers import usable_cpus, write_parts
from lavin_dit.data.shards.shard_set import ShardSet, verify_shards
from lavin_dit.data.tasks import TASKS
from lavin_dit.data.world.clips import render_clip
from lavin_dit.data.world.scenes import render_scene
from lavin_dit.errors import InputError

TEN = (
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
ROLES = ("input", "target")
CLIP_TASKS = tuple(name for name, task in TASKS.items() if task.medium == "clip")

SECTION: dict[str, Any] = {
    "seed": 0,
    "resolution": 16,
    "clip_frames": 1,
    "tasks": TEN,
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
    assert tasks_of(folder) == {task: {"train": 4, "test": 2} for task in TEN}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == {"pairs": {"train": 40, "test": 20}, "tasks": tasks_of(folder), "skipped": 0}
    assert json.loads((folder / "config.json").read_text())["num_train_scenes"] == 4
    with ShardSet(folder, "train") as shards:
        for task in TEN:
            pictures = [shards.image(member) for pair in shards.pairs_of(task) for member in pair.input + pair.target]
            assert {picture.shape for picture in pictures} == {(16, 16, 3)}
        np.testing.assert_array_equal(shards.image(shards.pairs_of("depth")[0].input[0]), render_scene(0, 0, 16).rgb)


def test_no_scene_is_in_both_splits_and_more_of_one_leaves_the_other(tmp_path: Path) -> None:
    with ShardSet(run(tmp_path), "train") as train, ShardSet(tmp_path / "shards", "test") as test:
        assert not {pair.scene for pair in train.pairs} & {pair.scene for pair in test.pairs}
        held_out = [(pair.key, pair.input[0].digest) for pair in test.pairs]
    with ShardSet(run(tmp_path, "more", num_train_scenes=7), "test") as test:
        assert [(pair.key, pair.input[0].digest) for pair in test.pairs] == held_out


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
    with caplog.at_level(logging.WARNING):
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


def test_clips_lie_beside_the_pictures_and_leave_them_as_they_are(tmp_path: Path) -> None:
    still = hashes(run(tmp_path, "still"))
    folder = run(tmp_path, clip_frames=5, num_train_clips=3, num_test_clips=2)
    assert {name.partition("/")[2] for name in hashes(folder).keys() - still.keys()} >= {"clips-00000.tar", "clips.safetensors"}
    for name, digest in hashes(folder).items():
        if name in still and name not in ("config.json", "metrics.json", "manifest.json"):
            assert digest == still[name]
    verify_shards(folder)
    assert json.loads((folder / "metrics.json").read_text())["clips"] == {"train": 3, "test": 2}
    with ShardSet(folder, "train") as train, ShardSet(folder, "test") as test:
        assert (train.clip_frames, len(train.clips), len(test.clips)) == (5, 3, 2)
        assert not {clip.scene for clip in train.clips} & {clip.scene for clip in test.clips}
        for index, clip in zip((0, 2, 4), train.clips, strict=True):
            np.testing.assert_array_equal(train.frames(clip.frames), render_clip(0, index, 16, num_frames=5))


def test_video_tasks_are_drawn_from_clips_whose_frames_are_stored_once(tmp_path: Path) -> None:
    folder = run(tmp_path, tasks=("depth", *CLIP_TASKS), clip_frames=5, num_train_clips=3, num_test_clips=2)
    assert tasks_of(folder) == {"depth": {"train": 4, "test": 2}, **{task: {"train": 3, "test": 2} for task in CLIP_TASKS}}
    with ShardSet(folder, "train") as shards:
        frames = shards.clips[0].frames
        np.testing.assert_array_equal(shards.frames(frames), render_clip(0, 0, 16, num_frames=5))
        assert [shards.pairs_of(task)[0].input for task in ("video_depth", "video_normals", "optical_flow")] == [frames] * 3
        prediction = shards.pairs_of("frame_prediction")[0]
        assert prediction.target == frames
        assert prediction.input[:2] == frames[:2]
        assert len(set(prediction.input[2:])) == 1
        for pair in shards.pairs:
            assert len(pair.input) == len(pair.target) == (5 if pair.task in CLIP_TASKS else 1)


def test_the_same_parameters_give_the_same_clips(tmp_path: Path) -> None:
    clips = {"clip_frames": 5, "num_train_clips": 2, "num_test_clips": 1}
    assert hashes(run(tmp_path, "one", **clips)) == hashes(run(tmp_path, "two", **clips))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
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


def test_held_out_tasks_have_pairs_in_the_test_split_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "test"):
        for role in ("input", "target"):
            put(tmp_path / "raw" / "mine" / split / f"a_{role}.png")
    with caplog.at_level(logging.WARNING):
        folder = run(tmp_path, tasks=("depth", "edges"), held_out_tasks=("edges", "mine"))
    assert tasks_of(folder) == {"depth": {"train": 4, "test": 2}, "edges": {"train": 0, "test": 2}, "mine": {"train": 0, "test": 1}}
    assert json.loads((folder / "manifest.json").read_text())["held_out_tasks"] == ["edges", "mine"]
    assert "held-out tasks: 1 pairs of them lie in the training split and are left out; put them under test" in caplog.messages
    with ShardSet(folder, "train") as shards:
        assert {pair.task for pair in shards.pairs} == {"depth"}


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (("flying",), r"^prepare\.held_out_tasks names flying: must be among depth, edges$"),
        (("depth", "edges"), r"^prepare\.held_out_tasks holds out every task: at least one must be left to learn$"),
    ],
)
def test_held_out_tasks_that_make_no_sense_are_refused(tmp_path: Path, held_out: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, tasks=("depth", "edges"), held_out_tasks=held_out)


def put_pairs(tmp_path: Path, names: str, *, task: str = "mine", split: str = "train") -> list[Path]:
    return [put(tmp_path / "raw" / task / split / f"{name}_{role}.png", place) for place, name in enumerate(names) for role in ROLES]


def test_bad_files_can_be_left_out_with_a_report_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_pairs(tmp_path, "abcdef")
    bad = put_pairs(tmp_path, "xy")
    bad[1].unlink()
    bad[2].write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        folder = run(tmp_path, tasks=("depth",), on_bad="skip")
    assert sum(tasks_of(folder)["mine"].values()) == 6
    assert json.loads((folder / "metrics.json").read_text())["skipped"] == 2
    losses = json.loads((folder / "skipped.json").read_text())
    assert [(loss["label"], loss["tasks"]) for loss in losses] == [(str(bad[0]), ["mine"]), (str(bad[2]), ["mine"])]
    for loss in losses:
        assert loss["reason"].startswith(f"{loss['label']}: ")
        assert f"left out: {loss['reason']}" in caplog.messages
    with pytest.raises(InputError, match=r"x_input\.png: has no target"):
        run(tmp_path, tasks=("depth",))


def test_a_task_that_loses_more_than_half_of_its_files_is_refused(tmp_path: Path) -> None:
    put_pairs(tmp_path, "ab")
    for path in put_pairs(tmp_path, "xyz"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^mine: 3 of 5 pairs from files cannot be read, more than half; the first reason is: .*is empty"):
        run(tmp_path, tasks=("depth",), on_bad="skip")
    put_pairs(tmp_path, "x")
    assert sum(tasks_of(run(tmp_path, tasks=("depth",), on_bad="skip"))["mine"].values()) == 3


def put_photo_tree(root: Path) -> None:
    """As ImageNet is laid out."""
    for split, names in (("train", "abc"), ("val", "d")):
        for place, name in enumerate(names):
            put(root / split / "n01440764" / f"n01440764_{name}.JPEG", place)


def test_published_data_sets_join_under_their_own_name(tmp_path: Path) -> None:
    put_photo_tree(tmp_path / "raw" / "imagenet")
    sources = tuple(
        SourceConfig(name=name, reader="imagenet", folder="imagenet", tasks=("denoising", "demosaicing")) for name in ("one", "two")
    )
    folder = run(tmp_path, tasks=("depth", "denoising"), sources=sources, held_out_tasks=("demosaicing",))
    assert tasks_of(folder) == {
        "demosaicing": {"train": 0, "test": 2},
        "denoising": {"train": 10, "test": 4},
        "depth": {"train": 4, "test": 2},
    }
    with ShardSet(folder, "train") as shards:
        assert shards.groups == (("denoising", "one"), ("denoising", "two"), ("denoising", "scenes"), ("depth", "scenes"))
        first, second = (shards.pairs_of("denoising", name) for name in ("one", "two"))
        assert [pair.target[0].digest for pair in first] == [pair.target[0].digest for pair in second]
        assert not {pair.scene for pair in first} & {pair.scene for pair in second}
        assert {pair.scene.partition("-")[0] for pair in first} == {"one"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": "polaroid"}, r"^prepare\.sources: there is no reader 'polaroid': choose one of coco, .*"),
        ({"tasks": ("flying",)}, r"^prepare\.sources: the reader imagenet has no pairs of flying: it gives tasks of restoration"),
        ({"tasks": ("depth",)}, r"^prepare\.sources: the reader imagenet has no pairs of depth.*"),
        ({"folder": "elsewhere"}, r"raw/elsewhere: is no folder: prepare\.sources names one below data/raw$"),
    ],
)
def test_published_data_sets_that_cannot_be_read_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    put_photo_tree(tmp_path / "raw" / "imagenet")
    source = SourceConfig(**{"name": "one", "reader": "imagenet", "folder": "imagenet", "tasks": ("denoising",), **changes})
    with pytest.raises(InputError, match=message):
        run(tmp_path, sources=(source,))


def test_long_names_of_data_sets_stay_unique_and_short() -> None:
    names = [sample_name("a" * 40, f"{'b' * 40}-{number}") for number in range(3)]
    assert len(set(names)) == 3
    assert {len(name) for name in names} == {60}
    assert sample_name("coco", "000001") == "coco-000001"


def test_clip_pairs_of_the_users_own_are_read_as_clips(tmp_path: Path) -> None:
    for role in ROLES:
        for frame in range(5):
            put(tmp_path / "raw" / "mine" / "train" / f"a_{role}" / f"{frame:03d}.png", frame)
    folder = run(tmp_path, tasks=("depth",), clip_frames=5, num_train_clips=1, num_test_clips=1)
    assert tasks_of(folder)["mine"] == {"train": 1, "test": 0}
    with ShardSet(folder, "train") as shards:
        assert len(shards.pairs_of("mine")[0].input) == 5
        assert {len(pair.input) for pair in shards.pairs_of("depth")} == {1}
    with pytest.raises(InputError, match=r"mine/train/a_input: is a clip: prepare\.clip_frames is 1 and must be 1 \+ 4k"):
        run(tmp_path, tasks=("depth",))


def test_more_megapixels_than_allowed_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "raw" / "photos" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: is 24x24 .*: prepare\.max_megapixels allows 0\.0001$"):
        run(tmp_path, max_megapixels=0.0001)


def command(tmp_path: Path, output: str, changes: dict[str, Any]) -> list[str]:
    section = tmp_path / "section.json"
    section.write_text(json.dumps({**SECTION, "num_train_scenes": 150, **changes}))
    folders = ["--input", f"raw={tmp_path / 'raw'}", "--output", f"shards={tmp_path / output}"]
    return [sys.executable, "-m", "components", "prepare", "--section", str(section), *folders]


def start(tmp_path: Path, output: str, **changes: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(tmp_path, output, changes), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


PART = ".shards.partial/parts/train-shard-{number:06d}.safetensors"


@pytest.mark.parametrize("moment", [PART.format(number=1), ".shards.partial/train/shard-00000.tar"])
def test_killed_in_the_middle_a_rerun_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    put(tmp_path / "raw" / "photos" / "a.png")
    process = start(tmp_path, "shards")
    wait_for(tmp_path / moment, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "shards").exists()
    finished = {path.stem for path in (tmp_path / ".shards.partial" / "parts").glob("*.safetensors")}
    written, write = [], Workshop.write
    monkeypatch.setattr(Workshop, "write", lambda workshop, work: (written.append(work.name), write(workshop, work)))
    run(tmp_path, num_train_scenes=150)
    assert len(finished) >= 2
    assert not finished & set(written)
    assert hashes(tmp_path / "shards") == hashes(run(tmp_path, "undisturbed", num_train_scenes=150))
    assert not list(tmp_path.glob(".*.partial*"))


def make_parts(tmp_path: Path, name: str, *, num_workers: int) -> dict[str, str]:
    config = PrepareConfig(**{**SECTION, "num_train_scenes": 512, "tasks": ("depth", "denoising")})
    workshop = Workshop(config, tmp_path / "raw", tmp_path / name)
    workshop.parts.mkdir()
    write_parts(workshop, plan_work(config, find_material(config, tmp_path / "raw")), num_workers=num_workers)
    return hashes(workshop.parts)


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    alone = make_parts(tmp_path, "alone", num_workers=1)
    assert len(alone) == 2 * (8 + 1)
    assert make_parts(tmp_path, "together", num_workers=2) == alone


def test_a_damaged_part_is_written_again_and_whole_ones_are_kept(tmp_path: Path) -> None:
    config = PrepareConfig(**SECTION)
    workshop = Workshop(config, tmp_path / "raw", tmp_path)
    works = plan_work(config, find_material(config, tmp_path / "raw"))
    write_parts(workshop, works, num_workers=1)
    before, (train, test) = hashes(tmp_path), (workshop.files_of(work) for work in works)
    kept = test.body.stat().st_ino
    train.body.write_bytes(train.body.read_bytes()[:-1])
    write_parts(workshop, works, num_workers=1)
    assert hashes(tmp_path) == before
    assert test.body.stat().st_ino == kept


@pytest.mark.skipif(usable_cpus() < 2, reason="one processor: there are no workers")
def test_no_worker_outlives_a_killed_run(tmp_path: Path) -> None:
    process = start(tmp_path, "shards", num_train_scenes=3000)
    wait_for(tmp_path / PART.format(number=0), process)
    workers = workers_of(process)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker works on"
        time.sleep(0.05)


@pytest.mark.skipif(usable_cpus() < 2, reason="one processor: there are no workers")
def test_a_worker_that_the_system_ends_is_told_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, "shards", num_train_scenes=3000)
    wait_for(tmp_path / PART.format(number=0), process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == (
        "lavin: failed: a process that was preparing data was ended by the system, perhaps for want of memory; run again to go on\n"
    )


def test_a_bad_file_that_a_worker_meets_is_told_as_it_is_and_ends_the_others(tmp_path: Path) -> None:
    put(tmp_path / "raw" / "photos" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"photos/bad\.png: cannot be read as an image"):
        make_parts(tmp_path, "parts", num_workers=2)
    assert multiprocessing.active_children() == []


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


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
