import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.folders import read_json, write_json
from components.gate import INPUTS, OUTPUTS, Check, Rival, judge, run
from components.registry.releases import Release, assign, register
from lavin_dit.config import Bound, GateConfig
from lavin_dit.errors import InputError
from lavin_dit.export.integrity import checksums_digest

MakeBundle = Callable[..., Path]
MakeMetrics = Callable[..., dict[str, Any]]


BUNDLE_CHECKS = ["bundle/hashes", "bundle/facts", "bundle/metrics", "bundle/parity"]


def config_of(*, at_least: int = 0, max_regression: float = 0.1, **bounds: Bound) -> GateConfig:
    by_name = {name.replace("__", "/"): bound for name, bound in bounds.items()}
    return GateConfig(against="lavin-dit#production", min_tasks_beating_baselines=at_least, bounds=by_name, max_regression=max_regression)


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


@pytest.fixture
def folders(tmp_path: Path, make_bundle: MakeBundle, make_metrics: MakeMetrics) -> dict[str, Path]:
    (tmp_path / "evaluation").mkdir()
    write_json(tmp_path / "evaluation" / "metrics.json", make_metrics())
    make_bundle(tmp_path / "bundle", words="three")
    return {"evaluation": tmp_path / "evaluation", "bundle": tmp_path / "bundle", "registry": tmp_path / "none"}


def verdict_of(config: GateConfig, folders: dict[str, Path]) -> dict[str, Any]:
    output = folders["bundle"].parent / "verdict"
    run(config, folders, {"verdict": output})
    verdict: dict[str, Any] = read_json(output / "verdict.json")
    return verdict


def test_the_step_names_its_folders() -> None:
    assert INPUTS == ("evaluation", "bundle", "registry")
    assert OUTPUTS == ("verdict",)


@pytest.mark.parametrize(
    ("bound", "passes"), [(Bound(max=0.2), True), (Bound(max=0.19), False), (Bound(min=0.2), True), (Bound(min=0.21), False)]
)
def test_bounds_hold_up_to_and_including_their_limit(make_metrics: MakeMetrics, bound: Bound, passes: bool) -> None:
    checks = judge(config_of(depth__abs_rel=bound), make_metrics(abs_rel=0.2), None)
    assert failed(checks) == ([] if passes else ["depth/abs_rel"])


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "0.1", True])
def test_a_metric_that_is_no_finite_number_fails_every_bound(make_metrics: MakeMetrics, value: object) -> None:
    metrics = make_metrics()
    metrics["tasks"]["depth"]["model"]["abs_rel"] = value
    assert failed(judge(config_of(depth__abs_rel=Bound(min=-1e9)), metrics, None)) == ["depth/abs_rel"]
    assert failed(judge(config_of(depth__abs_rel=Bound(max=1e9)), metrics, None)) == ["depth/abs_rel"]


@pytest.mark.parametrize("name", ["depth__unknown", "unknown__abs_rel", "depth"])
def test_a_bound_on_something_unknown_fails(make_metrics: MakeMetrics, name: str) -> None:
    assert failed(judge(config_of(**{name: Bound(min=0.0)}), make_metrics(), None)) == [name.replace("__", "/")]


def test_too_few_tasks_beating_the_baselines_fail_and_so_does_no_count(make_metrics: MakeMetrics) -> None:
    assert failed(judge(config_of(at_least=2), make_metrics(), None)) == []
    assert failed(judge(config_of(at_least=3), make_metrics(), None)) == ["tasks_beating_baselines"]
    assert failed(judge(config_of(at_least=0), {}, None)) == ["tasks_beating_baselines"]


def test_a_model_is_no_worse_than_itself(make_metrics: MakeMetrics) -> None:
    assert failed(judge(config_of(max_regression=0.0), make_metrics(), Rival("v0.1.0", make_metrics()))) == []


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ({"abs_rel": 0.219}, []),
        ({"abs_rel": 0.221}, ["depth/abs_rel against v0.1.0"]),
        ({"psnr": 18.1}, []),
        ({"psnr": 17.9}, ["denoising/psnr against v0.1.0"]),
        ({"abs_rel": 0.01, "psnr": 40.0}, []),
    ],
)
def test_a_regression_counts_in_the_direction_of_the_metric(make_metrics: MakeMetrics, metrics: dict[str, float], names: list[str]) -> None:
    assert (
        failed(judge(config_of(max_regression=0.1), make_metrics(**metrics), Rival("v0.1.0", make_metrics(abs_rel=0.2, psnr=20.0))))
        == names
    )


def test_slack_is_slack_for_negative_values_too(make_metrics: MakeMetrics) -> None:
    rival = Rival("v0.1.0", make_metrics(psnr=-10.0))
    assert failed(judge(config_of(max_regression=0.1), make_metrics(psnr=-10.5), rival)) == []
    assert failed(judge(config_of(max_regression=0.1), make_metrics(psnr=-11.5), rival)) == ["denoising/psnr against v0.1.0"]


def test_a_task_that_production_has_may_not_be_missing_and_a_new_one_may_come(make_metrics: MakeMetrics) -> None:
    fewer = make_metrics()
    del fewer["tasks"]["depth"]
    assert failed(judge(config_of(), fewer, Rival("v0.1.0", make_metrics()))) == ["depth/abs_rel against v0.1.0"]
    assert failed(judge(config_of(), make_metrics(), Rival("v0.1.0", fewer))) == []


def test_a_value_that_production_lacks_cannot_be_undercut(make_metrics: MakeMetrics) -> None:
    lacking = make_metrics()
    lacking["tasks"]["depth"]["model"]["abs_rel"] = None
    assert failed(judge(config_of(), make_metrics(abs_rel=99.0), Rival("v0.1.0", lacking))) == []
    nothing = make_metrics(abs_rel=math.nan)
    assert failed(judge(config_of(), nothing, Rival("v0.1.0", lacking))) == ["depth/abs_rel against v0.1.0"]


def test_a_good_bundle_passes_against_an_empty_stage(folders: dict[str, Path]) -> None:
    verdict = verdict_of(config_of(at_least=2, depth__abs_rel=Bound(max=0.5)), folders)
    assert verdict["passed"] is True
    assert verdict["compared_with"] is None
    assert verdict["bundle_sha256"] == checksums_digest(folders["bundle"])
    assert [check["name"] for check in verdict["checks"]] == [*BUNDLE_CHECKS, "tasks_beating_baselines", "depth/abs_rel"]
    assert not folders["registry"].exists()


def test_the_verdict_names_what_it_compared_with_and_follows_the_registry(
    folders: dict[str, Path], registry: Path, make_metrics: MakeMetrics
) -> None:
    folders = folders | {"registry": registry}
    verdict = verdict_of(config_of(), folders)
    assert (verdict["passed"], verdict["compared_with"], verdict["against"]) == (True, "v0.2.0", "lavin-dit#production")
    better, _ = register(registry, Release("lavin-dit", folders["bundle"], make_metrics(abs_rel=0.1)))
    assign(registry, better, "production")
    verdict = verdict_of(config_of(), folders)
    assert (verdict["passed"], verdict["compared_with"]) == (False, "v0.3.0")


def test_a_version_forced_in_without_metrics_is_no_obstacle(folders: dict[str, Path], registry: Path) -> None:
    forced, _ = register(registry, Release("lavin-dit", folders["bundle"], None, forced="why"))
    assign(registry, forced, "production")
    assert verdict_of(config_of(), folders | {"registry": registry})["passed"] is True
    assert "forced into the registry without metrics" in (folders["bundle"].parent / "verdict" / "summary.md").read_text()


def test_a_refusal_says_why_in_the_log_and_the_summary(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        verdict = verdict_of(config_of(at_least=5, depth__abs_rel=Bound(max=0.1)), folders)
    assert verdict["passed"] is False
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "gate: tasks_beating_baselines failed: is 2, must be at least 5",
        "gate: depth/abs_rel failed: is 0.2, must be at most 0.1",
    ]
    summary = (folders["bundle"].parent / "verdict" / "summary.md").read_text()
    assert summary.startswith("# Gate: refused, 2 of 6 checks failed\n")
    assert "| ✗ | depth/abs_rel | 0.2 | at most 0.1 |" in summary


def test_a_tampered_bundle_is_refused_without_stopping_the_step(folders: dict[str, Path]) -> None:
    (folders["bundle"] / "dit_velocity.onnx").write_bytes(b"tampered")
    verdict = verdict_of(config_of(), folders)
    assert [check["name"] for check in verdict["checks"] if not check["passed"]] == ["bundle/hashes"]
    assert "dit_velocity.onnx: has changed" in verdict["checks"][0]["reason"]


def test_an_absent_bundle_is_refused_without_stopping_the_step(folders: dict[str, Path], tmp_path: Path) -> None:
    verdict = verdict_of(config_of(), folders | {"bundle": tmp_path / "absent"})
    assert [check["name"] for check in verdict["checks"] if not check["passed"]] == BUNDLE_CHECKS
    assert verdict["bundle_sha256"] is None


def test_facts_that_are_no_object_are_refused_without_stopping_the_step(folders: dict[str, Path]) -> None:
    (folders["bundle"] / "bundle.json").write_text("[1]")
    assert "must hold a JSON object" in verdict_of(config_of(), folders)["checks"][1]["reason"]


@pytest.mark.parametrize("relative_error", [2e-3, None])
def test_a_bundle_that_differs_from_torch_or_was_not_compared_is_refused(
    folders: dict[str, Path], tmp_path: Path, make_bundle: MakeBundle, relative_error: float | None
) -> None:
    bundle = make_bundle(tmp_path / "other" / "bundle", relative_error=relative_error)
    verdict = verdict_of(config_of(), folders | {"bundle": bundle})
    assert [check["name"] for check in verdict["checks"] if not check["passed"]] == ["bundle/parity"]


def test_the_evaluation_of_another_model_does_not_count(folders: dict[str, Path], make_metrics: MakeMetrics) -> None:
    write_json(folders["evaluation"] / "metrics.json", make_metrics(abs_rel=0.01))
    verdict = verdict_of(config_of(), folders)
    assert [check["name"] for check in verdict["checks"] if not check["passed"]] == ["bundle/metrics"]
    assert "differ on depth" in verdict["checks"][2]["reason"]


def test_the_judged_metrics_are_kept_with_nan_as_null(folders: dict[str, Path], make_metrics: MakeMetrics) -> None:
    (folders["evaluation"] / "metrics.json").write_text(json.dumps(make_metrics(abs_rel=math.nan)))
    verdict_of(config_of(), folders)
    kept = folders["bundle"].parent / "verdict" / "metrics.json"
    assert read_json(kept)["tasks"]["depth"]["model"]["abs_rel"] is None


def test_an_absent_evaluation_and_a_foreign_registry_are_the_users_mistakes(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
        verdict_of(config_of(), folders | {"evaluation": tmp_path / "absent"})
    with pytest.raises(InputError, match="neither empty nor a registry"):
        verdict_of(config_of(), folders | {"registry": folders["bundle"]})
