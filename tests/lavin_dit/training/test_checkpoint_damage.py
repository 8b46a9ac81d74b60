import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavin_dit.hashing import file_sha256
from tests.lavin_dit.training.even_state import SHARD, checkpoints, flip, names, restored, said, save, state


def relist(folder: Path, change: Callable[[list[dict[str, Any]]], object] = len) -> None:
    """Changes what the marker says, and lets it agree with the files where it still names them."""
    files = json.loads((folder / "complete.json").read_text())["files"]
    change(files)
    for file in files:
        path = folder / str(file["name"])
        if path.is_file():
            file |= {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (folder / "complete.json").write_text(json.dumps({"files": files}))


def lose_a_piece(folder: Path) -> None:
    """As if the shard of another process had been left out of the marker, too."""
    shard = folder / SHARD
    tensors = load_file(shard) | {"network.weight": torch.zeros(1, 4)}
    offsets = {"network.weight": {"saved_offsets": [2, 0]}, "optimizer.step": {"saved_offsets": []}}
    save_file(tensors, shard, metadata={"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"})
    relist(folder)


def tell_another_step(folder: Path) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    (folder / "facts.json").write_text(json.dumps(facts | {"step": 1}))
    relist(folder)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda folder: flip(folder / SHARD), f"{SHARD} has another content than complete.json says"),
    "a shard cut off": (lambda folder: (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-10]), rf"{SHARD} has \d+ bytes"),
    "a shard missing": (lambda folder: (folder / SHARD).unlink(), f"{SHARD} is missing"),
    "a link in its place": (lambda folder: (folder / SHARD).rename(folder.parent / "s") and (folder / SHARD).symlink_to("../s"), "missing"),
    "facts missing": (lambda folder: (folder / "facts.json").unlink(), r"facts\.json is missing"),
    "facts of another step": (tell_another_step, r"facts\.json is not that of step 3"),
    "a marker cut off": (lambda folder: (folder / "complete.json").write_text('{"files": [{"na'), r"complete\.json cannot be read"),
    "an empty marker": (lambda folder: (folder / "complete.json").write_text(""), r"complete\.json cannot be read"),
    "a marker that is no mapping": (lambda folder: (folder / "complete.json").write_text("[]"), r"complete\.json cannot be read"),
    "a marker of nothing": (lambda folder: (folder / "complete.json").write_text('{"files": []}'), r"does not list facts\.json"),
    "a marker with a path": (
        lambda folder: relist(folder, lambda files: files[0].update(name="../step-00000002/facts.json")),
        r"lists '\.\./step-00000002/facts\.json', which is not a plain file",
    ),
    "a file that is not listed": (lambda folder: (folder / "shard-00001.safetensors").touch(), r"shard-00001\.safetensors is not listed"),
    "a shard that is none": (
        lambda folder: (folder / SHARD).write_bytes(b"\x80\x04cos\nsystem\n") and relist(folder),
        "its shards cannot be read",
    ),
    "a piece missing": (lose_a_piece, "a piece of network.weight is missing"),
    "a marker without its files": (
        lambda folder: [(folder / name).unlink() for name in (SHARD, "facts.json")],
        r"facts\.json is missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage, told = DAMAGE[name]
    save(tmp_path, 2, 3)
    damage(tmp_path / "step-00000003")
    assert restored(tmp_path) == (2, 2.0)
    (line,) = said(caplog)
    assert re.fullmatch(rf"{tmp_path}: step-00000003 is damaged \(.*{told}.*\): going back to the checkpoint before it", line), line
    assert ".step-00000003.damaged" in names(tmp_path), "out of the way, for whoever wants to know why"


def test_where_none_is_whole_the_run_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1, 2)
    for step in (1, 2):
        flip(tmp_path / f"step-0000000{step}" / SHARD)
    assert restored(tmp_path) is None
    assert [line.partition(" (")[0] for line in said(caplog)] == [
        f"{tmp_path}: step-00000002 is damaged",
        f"{tmp_path}: step-00000001 is damaged",
        f"{tmp_path}: no checkpoint is whole, the run begins anew",
    ]


def test_a_damaged_one_is_neither_kept_as_the_newest_nor_as_the_best(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, scores={2: 0.5, 3: 0.0})
    flip(tmp_path / "step-00000003" / SHARD)
    run = checkpoints(tmp_path, keep_last=1, keep_best=True)
    assert run.restore(state(-1.0)) == (2, {"position": 2})
    run.save(3, state(3), {"position": 3}, score=1.5)
    run.save(4, state(4), {"position": 4}, score=2.0, final=True)
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["step-00000002", "step-00000004"]
    assert restored(tmp_path) == (4, 4.0)


def test_a_folder_without_a_marker_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "complete.json").unlink()
    (tmp_path / "step-99").mkdir()
    (tmp_path / "step-99" / "complete.json").touch()
    assert restored(tmp_path) == (1, 1.0)
    assert said(caplog) == []
    save(tmp_path, 2)
    assert restored(tmp_path) == (2, 2.0)


def test_a_pickle_in_a_checkpoint_is_never_opened(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    opened = tmp_path / "opened"
    evil = f"cposix\nsystem\n(S'touch {opened}'\ntR.".encode()
    for name in (SHARD, ".metadata", "state.pt"):
        (tmp_path / "step-00000002" / name).write_bytes(evil)
    relist(tmp_path / "step-00000002", lambda files: files.append({"name": "state.pt"}))
    (tmp_path / "step-00000002" / ".metadata").unlink()
    assert restored(tmp_path) == (1, 1.0)
    assert not opened.exists()
