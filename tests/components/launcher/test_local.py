import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.launcher.local import _relay

TINY = Path(__file__).parents[2] / "tiny.yaml"


def train(shards: Path, output: Path, *overrides: str) -> list[str]:
    command = [sys.executable, "-m", "components", "train_vae", "--processes", "2", "--params", str(TINY)]
    values = [part for override in overrides for part in ("--set", override)]
    return [*command, *values, "--input", f"shards={shards}", "--output", f"vae={output}"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shards"
    command = [sys.executable, "-m", "components", "prepare", "--params", str(TINY), "--output", f"shards={folder}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


def test_two_processes_train_and_one_speaks(shards: Path, tmp_path: Path) -> None:
    done = subprocess.run(train(shards, tmp_path / "vae"), capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"progress: .* 4/4 ", done.stdout)) == 1
    assert done.stdout.count("step train_vae: started") == done.stdout.count("step train_vae: finished") == 1
    assert (tmp_path / "vae" / "weights.safetensors").is_file()


def test_a_mistake_found_by_the_processes_is_one_line(shards: Path, tmp_path: Path) -> None:
    command = train(shards, tmp_path / "vae", "train_vae.batch_size=1")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert re.fullmatch(r"lavin: error: .*batch_size is 1: must be at least the number of processes \(2\)\n", done.stderr)
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "vae").exists()


def test_sigterm_saves_the_state_and_stops_every_process(shards: Path, tmp_path: Path) -> None:
    command = train(shards, tmp_path / "vae", "train_vae.steps=100000", "train_vae.checkpoints.every_steps=100000")
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert any(line.startswith("progress: train ST-VAE") for line in parent.stdout)
    parent.send_signal(signal.SIGTERM)
    parent.send_signal(signal.SIGTERM)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 128 + signal.SIGTERM
    stopped = re.fullmatch(r"lavin: stopped: SIGTERM after step (\d+), whose state is saved: run again to continue\n", errors)
    assert stopped
    assert list((tmp_path / ".vae.partial" / "checkpoints").glob(f"*{stopped[1]}*"))
    assert wait_until_gone(str(tmp_path / "vae"))


def wait_until_gone(text: str) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not any(text in file.read_bytes().decode(errors="replace") for file in running()):
            return True
        time.sleep(0.2)
    return False


def running() -> list[Path]:
    return [folder / "cmdline" for folder in Path("/proc").iterdir() if folder.name.isdigit() and (folder / "cmdline").exists()]


def test_torchruns_own_report_is_kept_from_the_person() -> None:
    lines = [
        "W1123 03:00:00.000000 1 torch/distributed/run.py:800] *****\n",
        "progress: train 1/4 1/s eta 3s\n",
        "lavin: error: batch_size is 3\n",
        "E1123 03:00:00.000000 1 torch/distributed/elastic/multiprocessing/api.py:882] failed (exitcode: 2) local_rank: 0\n",
        "Traceback (most recent call last):\n",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n",
    ]
    assert _relay(lines) == "lavin: error: batch_size is 3"


@pytest.mark.parametrize("line", ["lavin: stalled: rank 1 has been in data", "lavin: stopped: SIGTERM after step 3"])
def test_why_a_process_ended_is_known_where_the_next_try_may_go_well(line: str) -> None:
    assert _relay(["progress: train 1/4 1/s eta 3s\n", f"{line}\n", "lavin: failed: the rest follows from it\n"]) == line
