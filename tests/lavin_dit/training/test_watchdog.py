import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lavin_dit.training.fit import HEARTBEATS
from lavin_dit.training.heartbeats import Heartbeat, Peers, Sighting, fault, heartbeat_file, write_heartbeat
from lavin_dit.training.processes import Processes, join_processes
from lavin_dit.training.watchdog import Watchdog
from tests.lavin_dit.training.tiny_runs import ENVIRONMENT, command_of, steps_done, wait_until

TIMEOUT_S = 1.2
STEPS = 2
LONG_S = 60.0
ALONE = Processes(0, 1, torch.device("cpu"))


def beat(rank: int, *, moves: int = 5, phase: str = "update", age_s: float = 100.0, waits: bool = False, number: int = 0) -> Heartbeat:
    return Heartbeat(
        rank=rank,
        host=f"node-{rank}",
        pid=1000 + rank,
        beat=number,
        moves=moves,
        step=12,
        phase=phase,
        age_s=age_s,
        since="2026-01-02T03:04:05Z",
        place="fit.py:1 in advance",
        waits=waits,
    )


def seen(*heartbeats: Heartbeat, silent: tuple[int, ...] = ()) -> list[Sighting]:
    return [Sighting(rank=each.rank, heartbeat=each, silent_s=50.0 if each.rank in silent else 0.0) for each in heartbeats]


def test_the_rank_that_entered_the_fewest_phases_is_at_fault() -> None:
    sentence = fault(seen(beat(0), beat(1, moves=4, phase="data"), beat(2)), timeout_s=100.0)
    assert sentence == (
        "rank 1 (process 1001 on node-1) has been in data of step 12 for 100 s, since 2026-01-02T03:04:05Z (fit.py:1 in advance); "
        "ranks 0, 2 wait in update"
    )


def test_a_rank_without_a_sign_of_life_is_at_fault_wherever_it_was() -> None:
    sentence = fault(seen(beat(0), beat(1, moves=9), silent=(1,)), timeout_s=100.0)
    assert sentence.startswith("rank 1 (process 1001 on node-1) has given no sign of life for 50 s, last seen in update of step 12")
    assert sentence.endswith("rank 0 waits in update")


def test_a_rank_that_never_left_a_heartbeat_is_at_fault() -> None:
    lost = Sighting(rank=1, heartbeat=None, silent_s=40.0)
    assert fault([*seen(beat(0)), lost], timeout_s=100.0) == "rank 1 has left no sign of life; rank 0 waits in update"
    assert fault([*seen(beat(0)), lost.model_copy(update={"silent_s": 1.0})], timeout_s=100.0) == ""


def test_whoever_waits_for_a_rank_within_its_time_waits_on() -> None:
    assert fault(seen(beat(0, age_s=170.0), beat(1, moves=4, phase="data", age_s=90.0)), timeout_s=100.0) == ""
    assert fault(seen(beat(0, age_s=170.0), beat(1, age_s=60.0)), timeout_s=100.0) == ""


def test_of_ranks_at_the_same_point_the_one_outside_of_the_collective_is_at_fault() -> None:
    sentence = fault(seen(beat(0, waits=True), beat(1), beat(2, waits=True)), timeout_s=100.0)
    assert sentence.startswith("rank 1 (process 1001 on node-1) has been in update")
    assert sentence.endswith("ranks 0, 2 wait in update")


def test_where_all_ranks_wait_for_each_other_none_is_named() -> None:
    sentence = fault(seen(beat(0, waits=True), beat(1, waits=True)), timeout_s=100.0)
    assert sentence.startswith("all 2 ranks have been in update of step 12 for 100 s")


def test_a_thousand_ranks_do_not_fill_the_screen() -> None:
    sentence = fault(seen(*(beat(rank, moves=5 - rank // 500) for rank in range(1000))), timeout_s=100.0)
    assert "; and 492 more; ranks 0, 1, 2, 3, 4, 5, 6, 7 and 492 more wait in update" in sentence
    assert len(sentence) < 2000


def test_a_file_is_silent_for_as_long_as_the_observer_has_seen_it_unchanged(tmp_path: Path) -> None:
    peers = Peers(tmp_path, [1, 2])
    write_heartbeat(tmp_path, beat(1))
    heartbeat_file(tmp_path, 2).write_text("{", encoding="utf-8")
    assert [sighting.silent_s for sighting in peers.look(1000.0)] == [0.0, 0.0]
    write_heartbeat(tmp_path, beat(1, number=1))
    assert [(each.silent_s, each.heartbeat) for each in peers.look(1007.0)] == [(0.0, beat(1, number=1)), (7.0, None)]
    assert peers.look(1009.0)[0].silent_s == 2.0


def test_what_is_left_of_a_finished_run_is_nothing(tmp_path: Path) -> None:
    with Watchdog(tmp_path / "heartbeats", ALONE, 100.0) as watchdog:
        watchdog.at(0, "data")
        end = time.monotonic() + 10
        while not heartbeat_file(tmp_path / "heartbeats", 0).exists():
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not (tmp_path / "heartbeats").exists()


@contextmanager
def ranks(scenario: str, folder: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes of this file, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, scenario, str(folder)],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def stalled_lines(text: str) -> list[str]:
    return [line.removeprefix("lavin: stalled: ") for line in text.splitlines() if line.startswith("lavin: stalled: ")]


def test_a_process_alone_that_waits_for_data_is_ended(tmp_path: Path) -> None:
    with ranks("sleeps in data", tmp_path, 1) as (process,):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        (line,) = stalled_lines(errors)
        assert re.fullmatch(rf"rank 0 \(process {process.pid} on .+\) has been in data of step 1 for \d s, since \S+Z \(.+\)", line)


@pytest.mark.parametrize(
    ("scenario", "phase", "step", "waiting"),
    [("sleeps in data", "data", 1, "update"), ("never joins", "update", 1, "update"), ("hangs while encoding", "encoding", 0, "encoding")],
)
def test_a_rank_that_holds_the_others_up_is_named(scenario: str, phase: str, step: int, waiting: str, tmp_path: Path) -> None:
    with ranks(scenario, tmp_path, 2) as processes:
        lines = [line for process in processes for line in stalled_lines(process.communicate(timeout=60)[1])]
        # Whoever is last may find its connection closed before it speaks, or the other one silent.
        named = rf"rank 1 \(process {processes[1].pid} on .+\) has been in {phase} of step {step} for .+; rank 0 waits in {waiting}"
        assert any(re.fullmatch(named, line) for line in lines), lines


def test_a_rank_that_is_stopped_is_named_by_the_others_under_torchrun(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "3",
        __file__,
        "is stopped",
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as torchrun:
        assert torchrun.stderr is not None
        said = ""
        for line in torchrun.stderr:
            said += line
            if found := re.match(r"lavin: stalled: rank 1 \(process (\d+) on .+\) has given no sign of life for \d s, last seen in", line):
                # A stopped process does not follow torchrun's SIGTERM either.
                os.kill(int(found[1]), signal.SIGKILL)
        assert torchrun.wait(timeout=60) == 1
    assert all(line.startswith("rank 1 (") and line.endswith("ranks 0, 2 wait in update") for line in stalled_lines(said))
    assert stalled_lines(said)


def test_a_sharded_training_whose_collective_hangs_ends_and_names_the_rank_that_is_stopped(tmp_path: Path) -> None:
    changed = {"steps": 100_000, "execution": {"sharding": "full"}, "guard": {"stall_timeout_s": 10 * TIMEOUT_S}}
    with subprocess.Popen(command_of(tmp_path, changed, 2), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as torchrun:
        wait_until(lambda: steps_done(tmp_path) >= 5, "two processes train")
        stopped = Heartbeat.model_validate_json(heartbeat_file(tmp_path / HEARTBEATS, 1).read_bytes()).pid
        os.kill(stopped, signal.SIGSTOP)
        assert torchrun.stderr is not None
        said = next(line.decode() for line in torchrun.stderr if line.startswith(b"lavin: stalled: "))
        # A stopped process does not follow torchrun's SIGTERM either.
        os.kill(stopped, signal.SIGKILL)
        torchrun.communicate(timeout=60)
    assert torchrun.returncode == 1
    assert said.startswith(f"lavin: stalled: rank 1 (process {stopped} on ")
    assert said.endswith("; rank 0 waits in update\n")


@pytest.mark.parametrize("scenario", ["is slow", "encodes for long"])
def test_long_steps_of_phases_within_their_time_are_no_stall(scenario: str, tmp_path: Path) -> None:
    with ranks(scenario, tmp_path, 2) as processes:
        ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0), ("", 0)]


def test_a_process_that_was_stopped_itself_goes_on(tmp_path: Path) -> None:
    with ranks("is watched", tmp_path, 1) as (process,):
        end = time.monotonic() + 60
        while not heartbeat_file(tmp_path, 0).exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * TIMEOUT_S)
        process.send_signal(signal.SIGCONT)
        assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


def train(scenario: str, folder: Path) -> None:
    with join_processes() as processes, Watchdog(folder, processes, TIMEOUT_S) as watchdog:
        is_odd = processes.rank == processes.world_size // 2
        watchdog.at(0, "encoding")
        for _ in range(4 if scenario == "encodes for long" and is_odd else 1):
            time.sleep(0.5 * TIMEOUT_S)
            watchdog.advance()
        if scenario == "hangs while encoding" and is_odd:
            time.sleep(LONG_S)
        processes.total(torch.ones(1))
        for step in range(STEPS):
            watchdog.at(step, "data")
            if scenario == "is watched":
                time.sleep(0.5 * TIMEOUT_S)
            if scenario == "is slow" and is_odd:
                time.sleep(0.7 * TIMEOUT_S)
            if scenario == "sleeps in data" and is_odd and step == 1:
                time.sleep(LONG_S)
            watchdog.at(step, "update")
            if scenario == "is slow" and is_odd:
                time.sleep(0.7 * TIMEOUT_S)
            if scenario == "never joins" and is_odd and step == 1:
                time.sleep(LONG_S)
            if scenario == "is stopped" and is_odd and step == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            processes.total(torch.ones(1))


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]))
