import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavin_dit.errors import InputError
from lavin_dit.training.checkpoints import Saved
from tests.lavin_dit.training.even_state import SHARD, checkpoints, names, restored, said, save, state

ROOT = Path(__file__).parents[3]


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_tensors_of_every_kind_and_facts_come_back_bit_for_bit(tmp_path: Path) -> None:
    base = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    tensors = {
        "float": base,
        "not a number": torch.tensor([float("nan"), float("inf"), -0.0]),
        "scalar": torch.tensor(3.25),
        "half": base.bfloat16(),
        "whole": torch.tensor([2**62, -1]),
        "boolean": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "transposed": base.T,
        "row": base[2],
        "same memory": base,
        "frozen": torch.nn.Parameter(base.clone(), requires_grad=False),
        "learnt": torch.nn.Parameter(base.clone()),
    }
    facts = {"loss": 0.1 + 0.2, "skipped": 3, "names": ["a", "b"], "state": {"weight": 1e-17}}
    checkpoints(tmp_path).save(7, tensors, facts, score=0.5, final=True)
    targets = {name: torch.zeros_like(tensor, memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    targets["transposed"] = torch.zeros_like(base).T
    assert checkpoints(tmp_path).restore(targets) == (7, facts)
    for name, tensor in tensors.items():
        assert targets[name].dtype == tensor.dtype
        assert bits(targets[name]) == bits(tensor), name


def test_a_new_run_finds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert restored(tmp_path / "absent") is None
    assert said(caplog) == []


def test_what_training_does_after_a_save_is_not_in_it(tmp_path: Path) -> None:
    tensor = torch.zeros(2_000_000)
    run = checkpoints(tmp_path)
    for step in (1, 2):
        tensor.fill_(step)
        run.save(step, {"weight": tensor}, {}, score=1.0)
        tensor.fill_(-1.0)
    run.wait()
    shutil.rmtree(tmp_path / "step-00000002")
    assert run.restore({"weight": tensor}) == (1, {})
    assert tensor.eq(1.0).all()


def test_a_save_is_reported_when_it_is_complete(tmp_path: Path) -> None:
    seen: list[tuple[Saved, list[str]]] = []
    folder = tmp_path / "step-00000005"
    checkpoints(tmp_path, on_saved=lambda saved: seen.append((saved, names(folder)))).save(5, state(5), {}, score=1.0, final=True)
    ((saved, files),) = seen
    assert files == ["complete.json", "facts.json", SHARD]
    assert (saved.step, saved.num_bytes) == (5, sum((folder / name).stat().st_size for name in ("facts.json", SHARD)))
    assert saved.blocked_s > 0
    assert saved.duration_s > 0


def test_a_save_waits_for_the_one_before(tmp_path: Path) -> None:
    seen: list[int] = []
    run = checkpoints(tmp_path, on_saved=lambda saved: seen.append(saved.step))
    for step in range(1, 6):
        run.save(step, state(step), {}, score=1.0)
        assert seen == list(range(1, step + 1))[: len(seen)]
        assert len(seen) >= step - 1
    run.close()
    assert seen == [1, 2, 3, 4, 5]


def steps(folder: Path) -> list[int]:
    return [int(name.removeprefix("step-")) for name in names(folder)]


def test_the_newest_stay_and_the_others_go(tmp_path: Path) -> None:
    save(tmp_path, 9, 10, 11, 100, keep_last=2)
    assert steps(tmp_path) == [11, 100]


def test_checkpoints_of_set_steps_stay_for_good(tmp_path: Path) -> None:
    save(tmp_path, *range(1, 9), keep_last=1, keep_every_steps=3)
    assert steps(tmp_path) == [3, 6, 8]


def test_the_best_stays_also_after_a_restart(tmp_path: Path) -> None:
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: 1.0, 6: 0.5, 7: float("inf")}
    save(tmp_path, 1, 2, 3, scores=losses, keep_last=1, keep_best=True)
    assert steps(tmp_path) == [2, 3]
    save(tmp_path, 4, 5, scores=losses, keep_last=1, keep_best=True)
    assert steps(tmp_path) == [2, 5]
    save(tmp_path, 6, 7, scores=losses, keep_last=1, keep_best=True)
    assert steps(tmp_path) == [6, 7]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    run = save(tmp_path, 1)
    run.save(1, state(2.0), {"position": 2.0}, score=1.0, final=True)
    assert restored(tmp_path) == (1, 2.0)
    assert names(tmp_path) == ["step-00000001"]


def test_a_kill_while_a_step_is_replaced_loses_neither(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001").rename(tmp_path / ".step-00000001.replaced")
    (tmp_path / ".step-00000001.partial").mkdir()
    assert restored(tmp_path) == (1, 1.0)
    assert names(tmp_path) == ["step-00000001"]


def test_checkpoints_of_another_run_are_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    save(tmp_path, 1)
    changed = {"seed": 3, "optimizer": {"learning_rate": 1e-4, "betas": (0.9, 0.99)}, "steps": 10}
    with pytest.raises(InputError) as refused:
        restored(tmp_path, identity=changed)
    assert str(refused.value) == (
        f"{tmp_path}: holds checkpoints of another run (optimizer.betas is [0.9, 0.95] there and [0.9, 0.99] here; "
        f"seed is 0 there and 3 here; steps is not set there and 10 here): put them back, or remove {tmp_path} to begin anew"
    )
    assert restored(tmp_path) == (1, 1.0), "and it is still there for the run that it belongs to"


OTHER_TENSORS = {
    "missing": ({"extra": torch.zeros(2)}, [], "does not hold the tensor extra; "),
    "too many": ({}, ["optimizer.step"], r"holds the tensor optimizer\.step, which this run does not have"),
    "of another shape": ({"network.weight": torch.zeros(4, 3)}, [], r"its tensor network\.weight is float32 3x4, .* is float32 4x3"),
    "of another type": ({"optimizer.step": torch.tensor(1)}, [], r"its tensor optimizer\.step is float32 scalar, .* is int64 scalar"),
}


@pytest.mark.parametrize("name", OTHER_TENSORS)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_filled(name: str, tmp_path: Path) -> None:
    added, left_out, told = OTHER_TENSORS[name]
    save(tmp_path, 1)
    tensors = {key: tensor for key, tensor in (state(-1.0) | added).items() if key not in left_out}
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    with pytest.raises(InputError, match=rf"step-00000001: {told}.*remove it to begin anew$"):
        checkpoints(tmp_path).restore(tensors)
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors.items())


def test_a_location_outlives_the_folder_of_the_run(tmp_path: Path) -> None:
    save(tmp_path / "run", 1, location=str(tmp_path / "mounted"))
    assert not (tmp_path / "run").exists()
    assert restored(tmp_path / "another run", location=str(tmp_path / "mounted")) == (1, 1.0)


@pytest.mark.parametrize("location", ["gs://bucket/prefix", "s3://", "s3:///", "http://host/bucket"])
def test_a_location_that_is_no_place_is_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^checkpoints\.location is {location}: must be a folder, or s3:// and a bucket"):
        checkpoints(tmp_path, location=location)


def test_a_location_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^checkpoints\.location is \S+/file/run: no folder can be made there \(Not a directory\)$"):
        restored(tmp_path, location=str(tmp_path / "file" / "run"))


FILL = """
import sys
from pathlib import Path
import torch
from tests.lavin_dit.training.even_state import checkpoints, save
run = save(Path(sys.argv[1]), 1, 2)
for act in ("save", "wait"):
    try:
        run.save(3, {"large": torch.ones(1_000_000)}, {}, score=1.0)
        run.wait()
    except OSError as error:
        print(error.errno, error.filename)
"""


def fill(command: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """What a process that saves too much says of it, and what is left."""
    done = subprocess.run([*command, sys.executable, "-c", FILL, str(folder)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_a_disk_that_fills_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m tmpfs {tmp_path}"
    if subprocess.run(["unshare", "-rm", "bash", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs in a namespace of one's own is not permitted here")
    lines, _ = fill(["unshare", "-rm", "bash", "-c", f'{mount}; "$@" && ls -A {tmp_path}', "bash"], tmp_path)
    reason = f"{errno.ENOSPC} {tmp_path}/.step-00000003.partial/{SHARD}"
    assert lines == [reason, reason, "step-00000001", "step-00000002"]


def test_a_file_size_limit_says_so_too(tmp_path: Path) -> None:
    lines, _ = fill(["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash"], tmp_path)
    assert lines == [f"{errno.EFBIG} {tmp_path}/.step-00000003.partial/{SHARD}"] * 2
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert restored(tmp_path) == (2, 2.0)
