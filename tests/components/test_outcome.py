import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.folders import read_json, write_json
from components.launcher.settings import ONE_PROCESS, JobSettings
from components.outcome import Outcome, flat_metrics, record_outcome
from components.run_plan import RunData
from components.run_request import RunRequest
from components.summaries import outcome_page, plan_page, promotion_page
from lavin_dit.config import load_config

DOCUMENT = {
    "tasks": {"depth": {"metric": "abs_rel", "model": {"abs_rel": 0.5, "delta1": None}, "query_unchanged": {"abs_rel": 1.0}}},
    "tasks_beating_baselines": 1,
    "num_tasks": 1,
}
OUTCOME = Outcome(
    "7f", "SUCCEEDED", "", 0.0, {"bundle": "/w/store/bundle-1"}, {"tasks_beating_baselines": 9}, "lavin-dit@v0.2.0 is in staging"
)


class Gateway(HTTPServer):
    """Takes what is pushed, as a Pushgateway does."""

    pushed: list[tuple[str, str]]


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.pushed.append((self.path, body))
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    server = Gateway(("127.0.0.1", 0), Handler)
    server.pushed = []
    monkeypatch.setenv("LAVIN_PUSHGATEWAY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_metrics_are_flat_numbers() -> None:
    assert flat_metrics(DOCUMENT) == {"depth/abs_rel": 0.5, "tasks_beating_baselines": 1}


def test_a_run_that_ended_before_its_plan_has_an_outcome_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)
    outcome = record_outcome(tmp_path, tmp_path / "runs" / "7f", state="FAILED", error="steps is 0")
    assert (outcome.done, outcome.metrics, outcome.promoted) == ({}, {}, "")
    assert read_json(tmp_path / "runs" / "7f" / "outcome.json")["error"] == "steps is 0"


def test_what_was_promoted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)
    run = tmp_path / "runs" / "7f"
    for folder in ("plan", "promotion"):
        (run / folder).mkdir(parents=True)
    config = {"prepare": {}}
    monkeypatch.setattr("components.outcome.find", lambda *_: _results(run))
    write_json(run / "plan" / "plan.json", {"config": config, "data": {"hash": "x"}, "source_sha256": "y"})
    write_json(run / "promotion" / "promotion.json", {"name": "lavin-dit", "version": "v0.2.0", "stage": "staging"})
    assert record_outcome(tmp_path, run, state="SUCCEEDED", error="").promoted == "lavin-dit@v0.2.0 is in staging"


def _results(run: Path) -> Any:
    from components.results import Results

    return Results(plan=run / "plan", promotion=run / "promotion")


def test_prometheus_gets_each_runs_numbers_in_a_group_of_its_own(tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.outcome._metrics", lambda _: flat_metrics(DOCUMENT))
    record_outcome(tmp_path, tmp_path / "runs" / "7f", state="SUCCEEDED", error="")
    ((path, body),) = gateway.pushed
    assert path == "/metrics/job/lavin/run/7f"
    samples = [sample for family in text_string_to_metric_families(body) for sample in family.samples]
    told = {(sample.name, sample.labels.get("task"), sample.labels.get("metric")): sample.value for sample in samples}
    assert told["lavin_run_succeeded", None, None] == 1
    assert told["lavin_run_metric", "depth", "abs_rel"] == 0.5
    assert told["lavin_run_metric", "", "tasks_beating_baselines"] == 1


def test_a_gateway_that_is_down_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LAVIN_PUSHGATEWAY", "http://127.0.0.1:9")
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)
    assert record_outcome(tmp_path, tmp_path / "runs" / "7f", state="SUCCEEDED", error="").state == "SUCCEEDED"
    assert "could not be pushed to http://127.0.0.1:9" in caplog.text


def test_a_page_tells_how_a_run_ended() -> None:
    page = outcome_page(OUTCOME)
    assert page.startswith("# Run 7f: succeeded\n")
    assert "| Promoted | lavin-dit@v0.2.0 is in staging |" in page
    assert "`lavin record 7f`" in page


def test_an_error_of_many_lines_stays_in_its_cell() -> None:
    page = outcome_page(replace(OUTCOME, state="FAILED", error="one\ntwo | three"))
    assert "| Error | one two / three |" in page
    assert "lavin record" not in page


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (ONE_PROCESS, "in the step itself, 1 process"),
        (
            JobSettings(launcher="pytorchjob", nodes=2, min_nodes=2, processes=8, accelerator="h100"),
            "pytorchjob, 2 nodes of 8 processes, h100",
        ),
        (
            JobSettings(launcher="pytorchjob", nodes=4, min_nodes=2, processes=1, accelerator="cpu"),
            "pytorchjob, 2 to 4 nodes of 1 process, cpu",
        ),
    ],
)
def test_a_page_tells_how_training_runs(job: JobSettings, words: str) -> None:
    config = load_config(Path(__file__).parents[1] / "tiny.yaml")
    request = RunRequest(**{field.name: "" for field in fields(RunRequest)} | {"overrides": ["a=1"], "recipe": "laptop"})  # type: ignore[arg-type]
    page = plan_page(request, config, data=RunData("md5", "rendered scenes alone"), rival="", job=job)
    assert f"| Training | {words} |" in page
    assert "| Compared with | lavin-dit#production (empty) |" in page
    assert "| Changed | `a=1` |" in page


def test_a_promotion_that_changed_nothing_says_so() -> None:
    record = {
        "name": "n",
        "version": "v0.1.0",
        "stage": "production",
        "registry": "/r",
        "commit": "c",
        "bundle_sha256": "s",
        "changed": False,
    }
    assert promotion_page(record).startswith("# n v0.1.0 is in production, as before\n")
