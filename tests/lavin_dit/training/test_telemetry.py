"""What a run tells: scraped over HTTP as Prometheus does, and read back from its files."""

import logging
import math
import socket
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from lavin_dit.data.tasks import TASKS
from lavin_dit.errors import InputError
from lavin_dit.training.checkpoints import Saved
from lavin_dit.training.exporter import ADDRESS_VARIABLE, PORT_VARIABLE
from lavin_dit.training.history import read_history, read_record
from lavin_dit.training.measures import PREFIX, Measures
from lavin_dit.training.processes import Processes
from lavin_dit.training.step_line import FIGURES_LINE
from lavin_dit.training.step_report import Outcome, StepReport
from lavin_dit.training.telemetry import Telemetry

ALONE = Processes(0, 1, torch.device("cpu"))
SECOND = Processes(1, 2, torch.device("cpu"))
NOT_FINITE = float("nan")


def report(step: int, outcome: Outcome = "learnt", *, loss: float = 0.5) -> StepReport:
    return StepReport(
        step=step,
        losses={"loss": loss, "squared": 0.4},
        grad_norm=2.0,
        learning_rate=1e-3,
        samples=16,
        tokens=1600,
        flops=3e9,
        data_wait_s=0.05,
        step_s=0.25,
        outcome=outcome,
    )


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that Telemetry is told to serve on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    monkeypatch.setenv(PORT_VARIABLE, str(number))
    return number


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    caplog.set_level(logging.INFO, logger="lavin_dit.training")


def scrape(port: int) -> dict[str, Any]:
    """Values by name and the labels beyond `network` and `rank`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            own = {name: value for name, value in sample.labels.items() if name not in ("network", "rank")}
            found[sample.name.removeprefix(PREFIX) + "".join(f" {name}={value}" for name, value in own.items())] = sample.value
    return found


def test_every_figure_of_a_step_is_served(port: int, tmp_path: Path) -> None:
    before = time.time()
    with Telemetry("dit", ALONE, tmp_path, resume_at=0, peak_flops=1e12) as telemetry:
        telemetry.step(report(1))
        telemetry.step(report(2, loss=0.25))
        telemetry.buckets(2, {"task": {"depth": 0.1, "edges": 0.4}, "time": {"0.0": 0.3}})
        telemetry.checkpoint_saved(Saved(step=2, blocked_s=0.02, duration_s=1.5, num_bytes=4096))
        found = scrape(port)
    expected = {
        "step": 2,
        "loss": 0.25,
        "loss_part part=squared": 0.4,
        "task_loss task=depth": 0.1,
        "task_loss task=edges": 0.4,
        "time_loss time=0.0": 0.3,
        "gradient_norm": 2,
        "learning_rate": 1e-3,
        "steps_total": 2,
        "samples_total": 32,
        "tokens_total": 3200,
        "skipped_steps_total reason=not_finite": 0,
        "skipped_steps_total reason=spike": 0,
        "rollbacks_total": 0,
        "step_duration_seconds_count": 2,
        "step_duration_seconds_sum": 0.5,
        "data_wait_seconds_sum": 0.1,
        "checkpoint_duration_seconds_sum": 1.5,
        "checkpoint_blocked_seconds_sum": 0.02,
        "last_checkpoint_step": 2,
        "last_checkpoint_bytes": 4096,
        "world_size": 1,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for name in ("start", "heartbeat", "last_checkpoint"):
        assert before <= found[f"{name}_timestamp_seconds"] <= time.time()
    assert found["resident_memory_bytes"] > 2**24
    assert 0 < found["disk_free_bytes"] <= found["disk_size_bytes"]
    assert not [name for name in found if name.startswith("device_memory") or "_created" in name]


def test_rates_are_work_by_the_clock_and_mfu_their_share_of_all_devices(port: int, tmp_path: Path) -> None:
    with Telemetry("dit", SECOND, tmp_path, resume_at=0, peak_flops=1e10) as telemetry:
        telemetry.step(report(1))
        found = scrape(port)
    assert found["samples_per_second"] == pytest.approx(16 / 0.25, rel=0.05)
    assert found["tokens_per_second"] == pytest.approx(100 * found["samples_per_second"])
    assert found["mfu_ratio"] == pytest.approx(3e9 / 0.25 / (2 * 1e10), rel=0.05)


def test_what_is_not_known_is_absent(port: int, tmp_path: Path) -> None:
    with Telemetry("vae", ALONE, tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1))
        found = scrape(port)
    assert not {"mfu_ratio", "last_checkpoint_timestamp_seconds"} & found.keys()


def test_skipped_steps_and_ways_back_are_counted_and_forget_their_rows(port: int, tmp_path: Path) -> None:
    with Telemetry("dit", ALONE, tmp_path, resume_at=0) as telemetry:
        for step, outcome in ((1, "learnt"), (2, "spike"), (3, "not_finite"), (4, "not_finite")):
            telemetry.step(report(step, outcome, loss=0.5 if outcome == "learnt" else NOT_FINITE))  # type: ignore[arg-type]
            telemetry.buckets(step, {})
        telemetry.rolled_back(1, {})
        telemetry.step(report(2))
        telemetry.buckets(2, {})
        found = scrape(port)
    assert (found["skipped_steps_total reason=spike"], found["skipped_steps_total reason=not_finite"], found["rollbacks_total"]) == (
        1,
        2,
        1,
    )
    record = read_record(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in record] == [1, 2]
    assert (record[-1]["skipped_steps"], record[-1]["rollbacks"]) == ({"not_finite": 2, "spike": 1}, 1)


def test_a_row_tells_of_the_last_step_that_was_learnt_from(tmp_path: Path) -> None:
    with Telemetry("dit", ALONE, tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1, loss=0.3))
        telemetry.step(report(2, "not_finite", loss=NOT_FINITE))
        telemetry.buckets(2, {})
        telemetry.step(report(3, "not_finite", loss=NOT_FINITE))
        telemetry.buckets(3, {})
    assert [row["losses"] for row in read_record(tmp_path / "metrics.jsonl")] == [{"loss": 0.3, "squared": 0.4}, {}]
    assert [(point["step"], point["loss"]) for point in read_history(tmp_path / "history.csv")] == [(2, 0.3)]


def test_a_restart_goes_on_counting_and_leaves_no_row_twice(tmp_path: Path) -> None:
    for resume_at, steps in ((0, range(1, 6)), (3, range(4, 7))):
        with Telemetry("dit", ALONE, tmp_path, resume_at=resume_at) as telemetry:
            for step in steps:
                telemetry.step(report(step, "spike" if step == 2 else "learnt"))
                telemetry.buckets(step, {"task": {"depth": float(step)}})
    record = read_record(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in record] == [1, 2, 3, 4, 5, 6]
    assert [row["skipped_steps"]["spike"] for row in record] == [0, 1, 1, 1, 1, 1]
    assert [row["last_checkpoint_step"] for row in record] == [None, None, None, 3, 3, 3]
    assert [row["task_losses"]["depth"] for row in record] == [1, 2, 3, 4, 5, 6]


def test_a_log_line_has_the_numbers_of_its_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Telemetry("dit", ALONE, tmp_path, resume_at=0, peak_flops=1e12) as telemetry:
        telemetry.step(report(1))
        telemetry.step(report(2, "spike"))
        telemetry.buckets(2, {"task": {"depth": 0.1}, "time": {"0.0": 0.3}})
    (line,) = caplog.messages
    (row,) = read_record(tmp_path / "metrics.jsonl")
    assert FIGURES_LINE.match(line)
    for words in (
        "step 2: loss 0.5, squared 0.4, gradient 2, learning rate 0.001",
        "0.25 s a step",
        "1 skipped (spike)",
        "by task: depth 0.1",
    ):
        assert words in line
    assert f"{row['samples_per_second']:.4g} samples/s" in line
    assert f"MFU {row['mfu']:.1%}" in line


def test_on_a_terminal_the_bar_speaks_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with Telemetry("dit", ALONE, tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1))
        telemetry.buckets(1, {})
    assert caplog.messages == []
    assert len(read_record(tmp_path / "metrics.jsonl")) == 1


def test_only_the_first_process_writes_and_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Telemetry("dit", SECOND, tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1))
        telemetry.buckets(1, {"task": {"depth": 0.1}})
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []


def test_nothing_listens_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.delenv(PORT_VARIABLE, raising=False)
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    monkeypatch.setattr(socket.socket, "listen", refuse)
    with Telemetry("dit", ALONE, tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1))


def test_each_process_of_a_node_has_the_next_port(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    with Telemetry("dit", SECOND, tmp_path, resume_at=0):
        assert scrape(port + 3)["world_size"] == 2


def test_it_listens_on_loopback_alone_unless_told_otherwise(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, is_reachable in ((None, False), ("0.0.0.0", True)):  # noqa: S104
        if address:
            monkeypatch.setenv(ADDRESS_VARIABLE, address)
        with Telemetry("dit", ALONE, tmp_path, resume_at=0), socket.socket() as client:
            # Another address of this very machine.
            assert (client.connect_ex(("127.0.0.2", port)) == 0) is is_reachable


def test_a_port_that_is_taken_costs_a_warning_and_the_port_is_free_afterwards(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Telemetry("dit", ALONE, tmp_path, resume_at=0) as first, Telemetry("vae", ALONE, tmp_path, resume_at=0) as second:
        first.step(report(1))
        second.step(report(7))
        assert scrape(port)["step"] == 1
    assert [message for message in caplog.messages if f"127.0.0.1:{port} cannot be listened on" in message] == caplog.messages
    assert len(caplog.messages) == 1
    with Telemetry("vae", ALONE, tmp_path, resume_at=0) as third:
        third.step(report(9))
        assert scrape(port)["step"] == 9


def test_an_address_that_is_none_costs_a_warning_and_no_training(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "node..cluster")
    with Telemetry("dit", ALONE, tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1))
    assert f"no metrics for Prometheus: node..cluster:{port} cannot be listened on" in caplog.text


@pytest.mark.parametrize("value", ["metrics", "0", "70000", "-1"])
def test_a_port_that_is_none_is_a_mistake(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PORT_VARIABLE, value)
    with pytest.raises(InputError, match=f"{PORT_VARIABLE} is {value}: must be a port"), Telemetry("dit", ALONE, tmp_path, resume_at=0):
        pass


def test_a_folder_that_is_gone_hides_its_disk_and_nothing_else(port: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with Telemetry("dit", SECOND, folder, resume_at=0):
        folder.rmdir()
        found = scrape(port)
    assert math.isnan(found["disk_free_bytes"])
    assert found["world_size"] == 2


def test_series_of_a_process_are_few(tmp_path: Path) -> None:
    measures = Measures("dit", ALONE, tmp_path)
    for name in TASKS:
        measures.take_bucket("task", name, 0.1)
    for number in range(10):
        measures.take_bucket("time", f"0.{number}", 0.1)
    samples = [sample for family in measures.registry.collect() for sample in family.samples]
    assert len(samples) < 150
    assert all(sample.labels["network"] == "dit" and sample.labels["rank"] == "0" for sample in samples)
    assert {name for sample in samples for name in sample.labels} == {"network", "rank", "task", "time", "reason", "le"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_memory_is_told(port: int, tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    kept = torch.ones(2**20, device=device)
    with Telemetry("dit", Processes(0, 1, device), tmp_path, resume_at=0) as telemetry:
        telemetry.step(report(1))
        telemetry.buckets(1, {})
        found = scrape(port)
    assert found["device_memory_peak_bytes"] >= found["device_memory_allocated_bytes"] >= kept.nbytes
    assert read_record(tmp_path / "metrics.jsonl")[0]["device_memory_gib"] > 0
