"""Checkpoints of several real processes: laid out anew over another number of them, and killed while they write."""

import errno
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lavin_dit.training.processes import Processes
from tests.lavin_dit.training import resharded_run
from tests.lavin_dit.training.even_state import flip, names, restored
from tests.s3_server import BUCKET, serve

ROOT = Path(__file__).parents[3]
ALONE = Processes(0, 1, torch.device("cpu"))
FOLDER = Path(__file__).parent
ROUNDS = 12


def in_processes(count: int, folder: Path, steps: int, *location: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += [str(FOLDER / "resharded_run.py"), str(folder), str(steps), *location]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_two_processes_one_and_four_continue_each_others_checkpoints_bit_for_bit(tmp_path: Path) -> None:
    two = in_processes(2, tmp_path, 2)
    assert names(tmp_path / "step-00000002") == ["complete.json", "facts.json", *(f"shard-0000{rank}.safetensors" for rank in range(2))]
    one = resharded_run.advance(tmp_path, 1, ALONE)
    assert resharded_run.advance(tmp_path, 1, ALONE)["found"] == 3
    flip(tmp_path / "step-00000004" / "shard-00000.safetensors")
    four = in_processes(4, tmp_path, 2)
    assert (two["found"], one["found"], four["found"]) == (None, 2, 3), "and all four pass over the damaged one"
    assert (one["restored"], four["restored"]) == (two["saved"], one["saved"])
    assert len({run[key] for run in (two, one, four) for key in ("fresh", "saved")}) == 6, "each began with other weights, and went on"
    assert four["empty_shards"] > two["empty_shards"] > 0
    sizes = [path.stat().st_size for path in sorted((tmp_path / "step-00000005").glob("shard-*"))]
    assert len(sizes) == 4
    assert max(sizes) < 0.5 * (tmp_path / "step-00000003" / "shard-00000.safetensors").stat().st_size


def test_processes_share_the_uploads_and_a_node_without_a_checkpoint_downloads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = f"s3://{BUCKET}/shared"
    with serve(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        one = resharded_run.advance(tmp_path / "one", 1, ALONE, location)
        two = in_processes(2, tmp_path / "two", 1, location)
        other = resharded_run.advance(tmp_path / "other", 0, ALONE, location)
        assert names(server.bucket / "shared" / "step-00000002") == names(tmp_path / "two" / "step-00000002")
    assert (two["found"], two["restored"]) == (1, one["saved"])
    assert (other["found"], other["restored"]) == (2, two["saved"])


ONE_IS_LIMITED = """
import os, resource, sys
from pathlib import Path
import torch
from torch import distributed
from lavin_dit.training.processes import Processes
from tests.lavin_dit.training.even_state import checkpoints, state

rank = 0 if os.fork() else 1
folder = Path(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
run = checkpoints(folder / "checkpoints", processes=Processes(rank, 2, torch.device("cpu")))
run.save(1, state(1), {"position": 1}, score=1.0, final=True)
if rank == 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    run.save(2, {f"large.{index}": torch.ones(10_000) for index in range(4)}, {}, score=1.0, final=True)
except OSError as error:
    (folder / f"said.{rank}").write_text(f"{error.errno} {error.filename}")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run.save(3, state(3), {"position": 3}, score=1.0, final=True)
distributed.barrier()
distributed.destroy_process_group()
if rank == 0:
    os.wait()
"""


def test_what_one_process_cannot_write_every_process_says(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_IS_LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    sentence = f"{errno.EFBIG} {tmp_path}/checkpoints/.step-00000002.partial/shard-00001.safetensors"
    assert [(tmp_path / f"said.{rank}").read_text() for rank in (0, 1)] == [sentence, sentence]
    assert names(tmp_path / "checkpoints") == ["step-00000001", "step-00000003"]
    assert restored(tmp_path / "checkpoints") == (3, 3.0)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_at_any_moment_of_a_save_leaves_a_whole_checkpoint(processes: int, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, str(FOLDER / "killed_run.py"), str(tmp_path), str(processes), str(ROUNDS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=ROOT)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    assert "damaged" not in done.stderr, "what is complete is whole: no marker appears before its files"
    assert int(done.stdout.split()[0]) >= ROUNDS // 2, "and runs went on between the kills"
