"""Rules and dashboard: they are what the code makes, promtool takes them, and they speak of nothing that is not exported."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lavin_dit.training.checkpoints import Saved
from lavin_dit.training.measures import KINDS, PREFIX, SKIPS, Measures
from lavin_dit.training.processes import Processes
from lavin_dit.training.step_report import StepReport
from lavin_dit.training.throughput import Rates
from pipelines.monitoring.__main__ import files
from pipelines.monitoring.dashboard import groups
from pipelines.monitoring.rules import RUNBOOK, Limits, alerts, rule_groups, span

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests" / "monitoring"
CASES = Path(__file__).with_name("rules.test.yaml")
OURS = re.compile(rf"\b(?:{PREFIX}|run:)\w+(?::\w+)*")
OF_THE_DEVICE = {f"{PREFIX}device_memory_allocated_bytes", f"{PREFIX}device_memory_peak_bytes"}
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What one process without a GPU exports once it has seen everything: names of series, and the labels of each."""
    measures = Measures("dit", Processes(0, 1, torch.device("cpu")), tmp_path_factory.mktemp("run"))
    losses = {"loss": 0.5, "squared": 0.4}
    report = StepReport(1, losses, 2.0, 1e-3, samples=16, tokens=1600, flops=3e9, data_wait_s=0.05, step_s=0.25, outcome="learnt")
    measures.take_step(report, Rates(64.0, 6400.0, 12e9), 0.4)
    measures.take_checkpoint(Saved(step=1, blocked_s=0.02, duration_s=1.5, num_bytes=4096))
    for kind in KINDS:
        measures.take_bucket(kind, "depth", 0.1)
    samples = [sample for family in measures.registry.collect() for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def expressions(document: Any) -> list[str]:
    """Every `expr` at any depth."""
    if isinstance(document, dict):
        return [*([document["expr"]] if "expr" in document else []), *(expr for value in document.values() for expr in expressions(value))]
    return [expr for value in document for expr in expressions(value)] if isinstance(document, list) else []


def names(document: Any) -> set[str]:
    return {name for expr in expressions(document) for name in OURS.findall(expr)}


@pytest.mark.parametrize("name", files())
def test_the_files_are_what_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text() == files()[name], "run python -m pipelines.monitoring"


def test_nothing_else_lies_beside_them() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*files(), "kustomization.yaml"}


def test_the_operator_and_a_plain_prometheus_get_the_same_rules() -> None:
    rule = yaml.safe_load((FOLDER / "prometheus-rule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((FOLDER / "rules.yaml").read_text()) == rule_groups()


def test_every_rule_and_every_curve_speaks_of_what_is_exported_or_recorded(exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for group in rule_groups()["groups"] for rule in group["rules"] if "record" in rule}
    for document in (rule_groups(), json.loads((FOLDER / "dashboard.json").read_text())):
        assert names(document)
        assert names(document) <= exported.keys() | recorded | OF_THE_DEVICE


def test_every_exported_metric_is_in_a_rule_or_on_the_dashboard(exported: dict[str, set[str]]) -> None:
    shown = names(rule_groups()) | names(json.loads((FOLDER / "dashboard.json").read_text()))
    families = {name.removesuffix(suffix) for name in shown for suffix in OF_HISTOGRAMS if name.endswith(suffix)} | shown
    assert {name for name in exported if not name.endswith(OF_HISTOGRAMS)} <= shown
    assert {name.removesuffix("_bucket") for name in exported if name.endswith("_bucket")} <= families


def test_labels_that_are_asked_for_are_exported(exported: dict[str, set[str]]) -> None:
    targets = {"job", "namespace", "run", "instance", "le"}
    known = targets.union(*exported.values())
    for expr in [*expressions(rule_groups()), *(expr for group in groups() for panel in group.panels for expr in panel.curves.values())]:
        for listed in re.findall(r" by \(([^)]*)\)", expr):
            assert {label.strip() for label in listed.split(",")} <= known, expr
        assert set(re.findall(r'reason="(\w+)"', expr)) <= set(SKIPS)


def test_every_alert_has_its_section_in_the_runbook() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    for alert in alerts():
        assert alert.rule()["annotations"]["runbook"] == f"{RUNBOOK}#{alert.name.lower()}"
    assert [heading for heading in headings if heading.startswith("Lavin")] == [alert.name for alert in alerts()]


def test_every_alert_is_tested_both_ways() -> None:
    asked = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["promql_expr_test"]]
    for alert in alerts():
        about = [case for case in asked if re.search(rf"\b{alert.name}\b", case["expr"])]
        assert {bool(case["exp_samples"]) for case in about} == {True, False}, alert.name


def test_promtool_takes_the_rules(promtool: Path) -> None:
    run(promtool, "check", "rules", "--lint-fatal", str(FOLDER / "rules.yaml"))


def test_alerts_fire_when_they_should_and_at_no_other_time(promtool: Path) -> None:
    run(promtool, "test", "rules", str(CASES))


@pytest.mark.parametrize("changed", [{"stall_s": 3600}, {"max_data_wait_share": 0.1}, {"missing_s": 3600}, {"min_free_share": 0.37}])
def test_other_limits_make_the_test_of_the_rules_fail(changed: dict[str, Any], promtool: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_groups(Limits(**changed))))
    cases = yaml.safe_load(CASES.read_text()) | {"rule_files": ["rules.yaml"]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(cases))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


@pytest.mark.parametrize(("seconds", "written"), [(0, "0s"), (45, "45s"), (90, "90s"), (120, "2m"), (3600, "1h"), (5400, "90m")])
def test_durations_are_written_as_prometheus_reads_them(seconds: int, written: str) -> None:
    assert span(seconds) == written


def test_a_dashboards_panels_are_told_apart_and_fill_whole_rows() -> None:
    board = json.loads((FOLDER / "dashboard.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) > 30
    boxes = [panel["gridPos"] for panel in board["panels"]]
    cells = [(x, y) for box in boxes for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) == 23


def run(*command: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
