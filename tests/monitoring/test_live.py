"""A real Prometheus scrapes a real job of two processes; one loss is not a number, then one process is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lavin_dit.training.exporter import PORT_VARIABLE
from lavin_dit.training.history import read_record
from pipelines.monitoring.rules import SCRAPE_JOB, Limits, rule_groups

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("poisoned_run.py")
DASHBOARD = ROOT / "manifests" / "monitoring" / "dashboard.json"
# Short enough for a test; what a busy machine slows down, or its disk holds, is not on trial.
SHORT = Limits(
    rate_s=6,
    stall_s=6,
    skips_s=20,
    patience_s=4,
    missing_s=3,
    min_usual_share=0.0,
    max_data_wait_share=1.0,
    min_free_share=0.0,
    watched_free_share=0.0,
)
CALM_S = 3.0
STANDSTILL = {"LavinTrainingStalled", "LavinRankMissing", "LavinRankUnreachable"}
NOT_HERE = ("device_memory", "time_loss")
"""Metrics that this run has not: it is on a CPU, and sorts no losses by time."""


@pytest.fixture
def job(tmp_path: Path, free_ports: Callable[[int], int]) -> Iterator[tuple[Path, list[str]]]:
    """The folder of a run of two processes, and the addresses of their metrics."""
    folder, port = tmp_path / "run", free_ports(2)
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", PORT_VARIABLE: str(port)}
    with (tmp_path / "job.log").open("w") as log:
        torchrun = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    yield folder, [f"127.0.0.1:{port + rank}" for rank in range(2)]
    ended_early = torchrun.poll() is not None
    # The processes are in sessions of their own.
    for process in [torchrun.pid, *(int(path.read_text()) for path in folder.glob("rank-*"))]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    torchrun.wait()
    assert not ended_early, (tmp_path / "job.log").read_text()[-3000:]


def test_alerts_fire_when_a_loss_is_not_a_number_and_when_a_process_stands_still(
    job: tuple[Path, list[str]], start_prometheus: Callable[..., Any]
) -> None:
    folder, targets = job
    with start_prometheus(targets, rule_groups(SHORT, interval_s=1), job=SCRAPE_JOB) as prometheus:
        prometheus.wait_for("lavin_training_step > 45", lambda steps: set(steps) == {"rank=0", "rank=1"}, timeout_s=60)
        # Targets that did not answer yet, while the job started, are told of too.
        prometheus.wait_for("ALERTS", lambda alerts: not alerts)
        until = time.monotonic() + CALM_S
        while time.monotonic() < until:
            assert prometheus.firing() == set()
            time.sleep(0.2)

        assert prometheus.query("lavin_training_skipped_steps_total == 0").keys() == {
            f"rank={rank},reason={reason}" for rank in range(2) for reason in ("not_finite", "spike")
        }
        (folder / "poison").touch()
        prometheus.wait_for('ALERTS{alertname="LavinLossNotFinite", alertstate="firing"}', bool)
        # The alert needs one rank's count; the others' come with their own next scrape.
        skipped = {f"rank={rank},reason=not_finite": 1 for rank in range(2)}
        prometheus.wait_for('lavin_training_skipped_steps_total{reason="not_finite"}', lambda counts: counts == skipped)
        assert prometheus.firing() == {"LavinLossNotFinite"}

        check_dashboard(prometheus)

        stopped = int((folder / "rank-1").read_text())
        os.kill(stopped, signal.SIGSTOP)
        prometheus.wait_for("ALERTS", lambda _: prometheus.firing() >= STANDSTILL)
        assert prometheus.query("lavin_training_world_size") == {"rank=0": 2}
        os.kill(stopped, signal.SIGCONT)
        prometheus.wait_for("ALERTS", lambda _: not prometheus.firing() & STANDSTILL)
    record = read_record(folder / "metrics.jsonl")
    assert [row["step"] for row in record] == [5 * index for index in range(1, len(record) + 1)]
    assert record[-1]["skipped_steps"] == {"not_finite": 1, "spike": 0}


def check_dashboard(prometheus: Any) -> None:
    """Every curve of the dashboard is there, but those that this run has not."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 30
    empty = [query for query in queries if not prometheus.query(re.sub(r"\$\w+", ".*", query).replace("[5m]", "[10s]"))]
    assert empty == [query for query in queries if any(name in query for name in NOT_HERE)]
