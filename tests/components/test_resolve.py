import logging
import subprocess
import sys
from pathlib import Path

import pytest

from components.data_version import data_hash
from components.folders import read_json
from components.resolve import run
from lavin_dit.config import SECTIONS, Config, load_config, section_from_json
from lavin_dit.errors import InputError

TINY = Path(__file__).parents[1] / "tiny.yaml"


def tiny(*overrides: str) -> Config:
    return load_config(TINY, overrides)


def write_raw(folder: Path) -> Path:
    raw = folder / "data" / "raw"
    for name in ("photos/a.png", "photos/b c.png", "photos.txt"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_text(name)
    return raw


def test_every_step_gets_its_own_section_back(tmp_path: Path) -> None:
    config = tiny("train_dit.steps=7")
    run(config, {"raw": tmp_path / "absent"}, {"plan": tmp_path / "plan"})
    for step in SECTIONS:
        assert section_from_json(step, (tmp_path / "plan" / f"{step}.json").read_text()) == getattr(config, step)
    plan = read_json(tmp_path / "plan" / "plan.json")
    assert plan["data"]["hash"] == data_hash(tmp_path / "absent")
    assert len(plan["source_sha256"]) == 64


IMPOSSIBLE = {
    "prepare.tasks=[depth, dreams]": "prepare.tasks names dreams: the tasks known are .*depth",
    "train_dit.task_weights={dreams: 2}": "train_dit.task_weights names dreams: must be among .*depth",
    "train_vae.frozen=[encodr]": "train_vae.frozen has encodr: no weight's name is or begins so; names near it: encoder",
    "train_dit.frozen=[blokcs]": "train_dit.frozen has blokcs: no weight's name is or begins so; names near it: blocks",
    "train_vae.frozen=[encoder, decoder]": "train_vae.frozen is encoder, decoder: leaves no weight to train",
    "gate.bounds={dreams/psnr: {min: 1}}": "gate.bounds.dreams/psnr names dreams",
    "gate.min_tasks_beating_baselines=99": "gate.min_tasks_beating_baselines is 99: there are only 6 tasks",
    "train_dit.max_pairs=6": "train_dit.max_pairs is 6: needs at least 7 training scenes of every task, and colorization has 6",
    "evaluate.sampling.num_pairs=4": "evaluate.sampling.num_pairs is 4: needs at least 5 held-out scenes of every task, and .* has 4",
    "export.sampling.num_pairs=4": "export.sampling.num_pairs is 4: needs at least 5 held-out scenes",
}


def test_video_tasks_that_no_step_will_show_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_clips = ("prepare.tasks=[depth, optical_flow]", "prepare.clip_frames=5", "prepare.num_train_clips=3", "prepare.num_test_clips=4")
    rest = ("gate={against: 'lavin-dit#production', min_tasks_beating_baselines: 0, bounds: {}, max_regression: 1.0}",)
    with caplog.at_level(logging.WARNING):
        run(tiny(*with_clips, *rest), {"raw": tmp_path / "absent"}, {"plan": tmp_path / "plan"})
    assert [record.getMessage() for record in caplog.records] == [
        "train_dit.clips is null: optical_flow, tasks of clips, are measured but not trained"
    ]
    caplog.clear()
    run(tiny(*with_clips, *rest, "train_dit.clips={share: 0.5, max_pairs: 1}"), {"raw": tmp_path / "absent"}, {"plan": tmp_path / "other"})
    assert not caplog.records


def test_a_held_out_task_needs_no_training_scenes_and_shows_none(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_pairs(raw, "dreams", "test", 3)
    run(tiny("prepare.held_out_tasks=[dreams]"), {"raw": raw}, {"plan": tmp_path / "plan"})
    with pytest.raises(InputError, match=r"dreams: has no training pairs"):
        run(tiny(), {"raw": raw}, {"plan": tmp_path / "other"})


@pytest.mark.parametrize("override", IMPOSSIBLE)
def test_what_cannot_work_is_refused_by_name(override: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=IMPOSSIBLE[override]):
        run(tiny(override), {"raw": tmp_path / "absent"}, {"plan": tmp_path / "plan"})
    assert not (tmp_path / "plan").exists()


def write_pairs(raw: Path, task: str, split: str, count: int) -> None:
    folder = raw / task / split
    folder.mkdir(parents=True)
    for number in range(count):
        for role in ("input", "target"):
            (folder / f"{number}_{role}.png").write_text("not read yet")


def test_the_users_own_folders_are_tasks_and_data(tmp_path: Path) -> None:
    write_pairs(tmp_path, "dreams", "train", 3)
    write_pairs(tmp_path, "dreams", "test", 3)
    run(tiny("train_dit.task_weights={dreams: 2}"), {"raw": tmp_path}, {"plan": tmp_path / "plan"})
    assert (tmp_path / "plan").is_dir()


def test_a_task_with_too_few_held_out_pairs_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    write_pairs(tmp_path, "dreams", "train", 8)
    write_pairs(tmp_path, "dreams", "test", 2)
    with pytest.raises(InputError, match=r"evaluate.sampling.num_pairs is 2: .* held-out .* dreams has 2; add pairs under its test folder"):
        run(tiny(), {"raw": tmp_path}, {"plan": tmp_path / "plan"})


def test_a_file_in_the_place_of_the_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("")
    with pytest.raises(InputError, match="raw: "):
        run(tiny(), {"raw": tmp_path / "raw"}, {"plan": tmp_path / "plan"})
    assert not (tmp_path / "plan").exists()


def test_the_data_hash_sees_names_and_contents(tmp_path: Path) -> None:
    raw = write_raw(tmp_path)
    hashes = [data_hash(raw)]
    (raw / "photos.txt").write_text("other")
    hashes.append(data_hash(raw))
    (raw / "photos.txt").rename(raw / "other.txt")
    hashes.append(data_hash(raw))
    assert len(set(hashes)) == 3
    assert data_hash(tmp_path / "absent") not in hashes


def test_the_data_hash_is_dvcs_own_and_stays_when_dvc_takes_over(tmp_path: Path) -> None:
    raw = write_raw(tmp_path)
    before = data_hash(raw)
    for arguments in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "data/raw"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert f"md5: {before}" in (tmp_path / "data" / "raw.dvc").read_text()
    assert data_hash(raw) == before
    (raw / "new.txt").write_text("new")
    assert data_hash(raw) != before
