import errno
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lavin_dit.training.checkpoints import Checkpoints


def state(value: float, size: int = 4) -> dict[str, object]:
    return {"network": {"weight": torch.full((size,), value)}, "optimizer": {"step": 3, "groups": [{"lr": 0.1}]}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> tuple[int, float] | None:
    found = Checkpoints(folder).newest()
    return (found[0], float(found[1]["network"]["weight"][0])) if found else None


def test_the_newest_come_back_and_the_old_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.newest() is None
    for step in (9, 10, 100):
        checkpoints.save(step, state(step))
    assert names(checkpoints.folder) == ["step-00000010", "step-00000100"]
    assert newest(checkpoints.folder) == (100, 100.0)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, state(1))
    Checkpoints(tmp_path).save(1, state(2))
    assert newest(tmp_path) == (1, 2.0)
    assert names(tmp_path) == ["step-00000001"]


DAMAGE = {
    "flipped bit": lambda folder: (folder / "state.pt").write_bytes(_flipped((folder / "state.pt").read_bytes())),
    "cut off": lambda folder: (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:-10]),
    "no state": lambda folder: (folder / "state.pt").unlink(),
    "no mark": lambda folder: (folder / "complete.json").unlink(),
    "cut mark": lambda folder: (folder / "complete.json").write_text('{"step": 2, "sha'),
    "empty mark": lambda folder: (folder / "complete.json").write_text("{}"),
    "odd mark": lambda folder: (folder / "complete.json").write_text("[]"),
}


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(step, state(step))
    DAMAGE[name](tmp_path / "step-00000002")
    assert newest(tmp_path) == (1, 1.0)
    assert caplog.messages == [f"{tmp_path / 'step-00000002'} is damaged: going back to the checkpoint before it"]
    Checkpoints(tmp_path).save(2, state(5))
    assert newest(tmp_path) == (2, 5.0)


def test_what_a_killed_run_left_half_written_is_never_taken(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, state(1))
    Checkpoints(tmp_path).save(2, state(2))
    (tmp_path / "step-00000002").rename(tmp_path / ".step-00000002.partial")
    assert newest(tmp_path) == (1, 1.0)
    Checkpoints(tmp_path).save(2, state(3))
    assert (newest(tmp_path), names(tmp_path)) == ((2, 3.0), ["step-00000001", "step-00000002"])


def test_a_full_disk_leaves_the_checkpoints_before_it_whole(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, state(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"state\.pt") as full:
            Checkpoints(tmp_path).save(2, state(2, size=100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.errno == errno.EFBIG
    assert names(tmp_path) == ["step-00000001"]
    assert newest(tmp_path) == (1, 1.0)
    Checkpoints(tmp_path).save(2, state(2, size=100_000))
    assert newest(tmp_path) == (2, 2.0)


FILL_DISK = """
import pathlib, sys, torch
from lavin_dit.training.checkpoints import Checkpoints
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
checkpoints.save(1, {"weight": torch.ones(1000)})
try:
    checkpoints.save(2, {"weight": torch.ones(1_000_000)})
except OSError as error:
    print(error.errno, checkpoints.newest()[0], sorted(path.name for path in checkpoints.folder.iterdir()))
"""


def test_a_disk_that_is_really_full_leaves_the_checkpoint_before_it_whole(tmp_path: Path) -> None:
    disk = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "bash", "-c", disk], check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs in a namespace of one's own is not permitted here")
    command = f'{disk} && exec "$0" -c "$1" {tmp_path}/checkpoints'
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", command, sys.executable, FILL_DISK], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.stderr) == (f"{errno.ENOSPC} 1 ['step-00000001']\n", "")


class Unknown:
    """Code that a pickle could run."""


def test_a_checkpoint_that_holds_code_is_not_loaded(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, {"network": Unknown()})
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        Checkpoints(tmp_path).newest()
