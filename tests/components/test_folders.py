import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.folders import atomic_folder, exclusive, fingerprint, key_of_partial, partial_of, read_json, step_key, write_json
from lavin_dit.config import PromoteConfig
from lavin_dit.errors import InputError

WRITE_THEN_DIE = """
import os, signal, sys
from pathlib import Path
from components.folders import atomic_folder

with atomic_folder(Path(sys.argv[1]), key=sys.argv[2]) as folder:
    (folder / "half.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

DIE_BETWEEN_THE_RENAMES = """
import os, signal, sys
from pathlib import Path
from components.folders import atomic_folder

rename, count = Path.rename, 0

def rename_once(self, target):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

Path.rename = rename_once
with atomic_folder(Path(sys.argv[1]), key=sys.argv[2]) as folder:
    (folder / "new.txt").write_text("new")
"""


def run_until_killed(script: str, target: Path, key: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, str(target), key], check=False)
    assert done.returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with atomic_folder(target, key="k") as folder:
        (folder / "a.txt").write_text("a")
        assert not target.exists()
    assert names(target) == ["a.txt"]
    assert names(target.parent) == ["out"]


def test_an_old_folder_is_replaced_not_merged(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("old.txt", "new.txt"):
        with atomic_folder(target, key=name) as folder:
            (folder / name).write_text(name)
    assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["out"]


def test_a_killed_writer_leaves_no_target_and_the_same_key_continues(tmp_path: Path) -> None:
    target = tmp_path / "out"
    run_until_killed(WRITE_THEN_DIE, target, "same")
    assert not target.exists()
    with atomic_folder(target, key="same") as folder:
        assert names(folder) == ["half.txt"]
    assert names(target) == ["half.txt"]


def test_what_another_key_left_is_wiped(tmp_path: Path) -> None:
    target = tmp_path / "out"
    run_until_killed(WRITE_THEN_DIE, target, "old")
    with atomic_folder(target, key="new") as folder:
        assert names(folder) == []


def test_a_half_wiped_folder_is_never_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    run_until_killed(WRITE_THEN_DIE, target, "old")

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("components.folders._remove", interrupted)
        with pytest.raises(KeyboardInterrupt), atomic_folder(target, key="new"):
            pass
    with atomic_folder(target, key="old") as folder:
        assert names(folder) == []


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target, key="old") as folder:
        (folder / "old.txt").write_text("old")
    run_until_killed(DIE_BETWEEN_THE_RENAMES, target, "new")
    assert not target.exists()
    with atomic_folder(target, key="new") as folder:
        assert names(folder) == ["new.txt"]
    assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["out"]


def test_an_error_inside_keeps_the_old_folder_and_the_work(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target, key="k") as folder:
        (folder / "old.txt").write_text("old")

    def fail(folder: Path) -> None:
        (folder / "work.txt").write_text("work")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), atomic_folder(target, key="k2") as folder:
        fail(folder)
    assert names(target) == ["old.txt"]
    assert names(partial_of(target)) == ["work.txt"]


def test_two_processes_never_write_one_folder_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from components.folders import exclusive\nwith exclusive(Path(sys.argv[1])): print('in')"
    )
    with exclusive(tmp_path / "out"):
        other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.communicate(timeout=1.0)
    assert other.communicate(timeout=30)[0] == "in\n"


def test_a_fingerprint_sees_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    def tree(name: str, **files: str) -> str:
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return fingerprint(tmp_path / name)

    assert tree("first", a="1", b="2") == tree("second", b="2", a="1")
    assert len({tree("first"), tree("third", a="2", b="1"), tree("fourth", a="1", c="2"), tree("fifth", a="12")}) == 4
    assert tree("absent") == tree("also-absent")


def test_a_manifest_with_hashes_stands_for_its_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"files": {"big.tar": "0" * 64}})
    before = fingerprint(tmp_path)
    (tmp_path / "big.tar").write_text("not read")
    assert fingerprint(tmp_path) == before
    write_json(tmp_path / "manifest.json", {"files": {"big.tar": "1" * 64}})
    assert fingerprint(tmp_path) != before


def test_a_step_key_sees_the_section_and_the_inputs(tmp_path: Path) -> None:
    one, two = PromoteConfig(name="a", stage="s"), PromoteConfig(name="b", stage="s")
    (tmp_path / "file").write_text("1")
    key = step_key(one, {"bundle": tmp_path})
    assert key == step_key(one, {"bundle": tmp_path})
    assert len({key, step_key(two, {"bundle": tmp_path}), step_key(one, {"verdict": tmp_path}), step_key(one, {})}) == 4


def test_json_is_canonical_whole_and_finite(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"b": float("nan"), "a": [1.5, float("inf")]}, nan_as_null=True)
    assert path.read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "b": null\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": [1.5, None], "b": None}
    assert names(tmp_path) == ["metrics.json"]


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad.json", "absent.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)


def test_a_partial_folder_tells_what_it_was_made_for(tmp_path: Path) -> None:
    assert key_of_partial(tmp_path / "out") is None
    run_until_killed(WRITE_THEN_DIE, tmp_path / "out", "some key")
    assert key_of_partial(tmp_path / "out") == "some key"
    with atomic_folder(tmp_path / "out", key="some key"):
        pass
    assert key_of_partial(tmp_path / "out") is None
