import subprocess
import sys
from pathlib import Path

import pytest

from components.data_version import data_hash
from components.folders import read_json
from components.resolve import check, run
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
    "prepare.tasks=[depth, dreams]": "prepare.tasks names dreams: must be among .*depth",
    "train_dit.task_weights={dreams: 2}": "train_dit.task_weights names dreams",
    "gate.bounds={dreams/psnr: {min: 1}}": "gate.bounds.dreams/psnr names dreams",
    "gate.min_tasks_beating_baselines=99": "gate.min_tasks_beating_baselines is 99: there are only 6 tasks",
    "train_dit.max_pairs=6": "train_dit.max_pairs is 6: needs prepare.num_train_scenes of at least 7, which is 6",
    "evaluate.sampling.num_pairs=4": "evaluate.sampling.num_pairs is 4: needs prepare.num_test_scenes of at least 5, which is 4",
}


@pytest.mark.parametrize("override", IMPOSSIBLE)
def test_what_cannot_work_is_refused_by_name(override: str) -> None:
    with pytest.raises(InputError, match=IMPOSSIBLE[override]):
        check(tiny(override), [])


def test_the_users_own_folders_are_tasks_and_data(tmp_path: Path) -> None:
    check(tiny("train_dit.task_weights={dreams: 2}", "prepare.num_train_scenes=0"), ["dreams"])


def test_a_file_in_the_place_of_the_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("")
    with pytest.raises(InputError, match="raw: cannot be listed"):
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
