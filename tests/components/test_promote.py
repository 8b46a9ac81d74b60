import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.folders import read_json, write_json
from components.promote import INPUTS, OUTPUTS, Target, promote_bundle, run
from components.registry.history import read_history
from components.registry.releases import assign, read_release_file, roll_back
from lavin_dit.config import PromoteConfig
from lavin_dit.errors import InputError
from lavin_dit.export.integrity import checksums_digest

MakeBundle = Callable[..., Path]
CONFIG = PromoteConfig(name="lavin-dit", stage="production")


@pytest.fixture
def folders(registry: Path, tmp_path: Path, make_bundle: MakeBundle, make_verdict: MakeBundle) -> dict[str, Path]:
    bundle = make_bundle(tmp_path / "run" / "bundle", words="three")
    return {"bundle": bundle, "verdict": make_verdict(bundle, compared_with="v0.2.0", abs_rel=0.1), "registry": registry}


def promotion_of(folders: dict[str, Path]) -> dict[str, Any]:
    output = folders["bundle"].parent / "promotion"
    run(CONFIG, folders, {"promotion": output})
    promotion: dict[str, Any] = read_json(output / "promotion.json")
    return promotion


def versions(registry: Path) -> list[str]:
    return [version.version for version in read_history(registry, "lavin-dit").versions]


def test_the_step_names_its_folders() -> None:
    assert INPUTS == ("bundle", "verdict", "registry")
    assert OUTPUTS == ("promotion",)


def test_a_bundle_that_passed_becomes_a_version_in_the_stage(folders: dict[str, Path]) -> None:
    promotion = promotion_of(folders)
    version = read_history(folders["registry"], "lavin-dit").in_stage("production")
    assert version
    assert promotion == {
        "name": "lavin-dit",
        "version": "v0.3.0",
        "stage": "production",
        "commit": version.commit,
        "registry": str(folders["registry"]),
        "bundle_sha256": checksums_digest(folders["bundle"]),
        "changed": True,
    }
    assert read_release_file(folders["registry"], version, "metrics.json") == (folders["verdict"] / "metrics.json").read_text()


def test_promoting_again_changes_nothing_and_says_so(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    first = promotion_of(folders)
    with caplog.at_level("INFO"):
        assert promotion_of(folders) == first | {"changed": False}
    assert "lavin-dit@v0.3.0 is in production already, nothing changed" in caplog.text
    assert len(read_history(folders["registry"], "lavin-dit").assignments) == 3


def test_a_promotion_killed_before_it_was_written_down_is_written_down_by_the_next(folders: dict[str, Path]) -> None:
    target = Target(folders["registry"], "lavin-dit", "production")
    promote_bundle(folders["bundle"], target, verdict=folders["verdict"] / "verdict.json")
    assert promotion_of(folders)["changed"] is False
    assert versions(folders["registry"]) == ["v0.1.0", "v0.2.0", "v0.3.0"]


@pytest.mark.parametrize("change", [{"passed": False}, {"passed": "true"}, {"passed": None}])
def test_without_a_pass_nothing_is_promoted(folders: dict[str, Path], change: dict[str, object]) -> None:
    path = folders["verdict"] / "verdict.json"
    write_json(path, read_json(path) | change)
    with pytest.raises(InputError, match=r"verdict\.json: the gate refused this bundle"):
        promotion_of(folders)
    assert versions(folders["registry"]) == ["v0.1.0", "v0.2.0"]


def test_a_refusal_names_the_failed_checks(folders: dict[str, Path], make_verdict: MakeBundle) -> None:
    make_verdict(folders["bundle"], passed=False)
    with pytest.raises(InputError, match=r"\(failed: depth/abs_rel\)"):
        promotion_of(folders)


def test_the_verdict_on_another_bundle_does_not_count(folders: dict[str, Path], tmp_path: Path, make_bundle: MakeBundle) -> None:
    other = make_bundle(tmp_path / "other" / "bundle", words="four")
    with pytest.raises(InputError, match="is the verdict on another bundle"):
        promotion_of(folders | {"bundle": other})


def test_a_verdict_that_is_no_verdict_is_refused(folders: dict[str, Path]) -> None:
    (folders["verdict"] / "verdict.json").write_text("[]")
    with pytest.raises(InputError, match="the gate refused"):
        promotion_of(folders)
    (folders["verdict"] / "verdict.json").unlink()
    with pytest.raises(InputError, match=r"verdict\.json: cannot be read"):
        promotion_of(folders)


def test_a_tampered_bundle_is_refused_whatever_the_verdict(folders: dict[str, Path]) -> None:
    (folders["bundle"] / "model_card.md").write_text("better than it is")
    target = Target(folders["registry"], "lavin-dit", "production")
    for forced in (None, "I know better"):
        with pytest.raises(InputError, match=r"model_card\.md: has changed"):
            promote_bundle(folders["bundle"], target, verdict=folders["verdict"] / "verdict.json", forced=forced)


def test_a_pass_against_a_model_that_was_replaced_since_does_not_count(folders: dict[str, Path]) -> None:
    roll_back(folders["registry"], "lavin-dit", "production")
    with pytest.raises(InputError, match=r"compared this bundle with v0\.2\.0, but v0\.1\.0 is in production now; run the gate again"):
        promotion_of(folders)
    assert versions(folders["registry"]) == ["v0.1.0", "v0.2.0"]


def test_a_bundle_may_be_gated_against_one_stage_and_promoted_to_another(folders: dict[str, Path]) -> None:
    target = Target(folders["registry"], "lavin-dit", "staging")
    promotion = promote_bundle(folders["bundle"], target, verdict=folders["verdict"] / "verdict.json")
    known = read_history(folders["registry"], "lavin-dit")
    assert known.stages_of(promotion.version) == ("staging",)
    assert known.trail("production") == ["v0.1.0", "v0.2.0"]


def test_a_forced_promotion_leaves_its_reason_in_the_registry(folders: dict[str, Path], make_verdict: MakeBundle) -> None:
    make_verdict(folders["bundle"], passed=False, abs_rel=0.9)
    target = Target(folders["registry"], "lavin-dit", "production")
    promotion = promote_bundle(folders["bundle"], target, verdict=folders["verdict"] / "verdict.json", forced="hot fix")
    known = read_history(folders["registry"], "lavin-dit")
    assert known.in_stage("production") == promotion.version
    assert (promotion.version.forced, known.assignments[-1].forced) == ("hot fix", "hot fix")
    assert read_release_file(folders["registry"], promotion.version, "metrics.json") == (folders["verdict"] / "metrics.json").read_text()


def test_a_forced_promotion_needs_no_verdict_and_keeps_the_metrics_in_the_bundle(folders: dict[str, Path], tmp_path: Path) -> None:
    target = Target(folders["registry"], "lavin-dit", "production")
    promotion = promote_bundle(folders["bundle"], target, verdict=tmp_path / "absent" / "verdict.json", forced="hot fix")
    assert promotion.is_new_version
    text = read_release_file(folders["registry"], promotion.version, "metrics.json")
    assert text
    metrics = json.loads(text)
    assert metrics["tasks"]["depth"]["model"]["abs_rel"] == 0.2
    assert (metrics["tasks_beating_baselines"], metrics["num_tasks"]) == (2, 2)


def test_a_registered_bundle_only_changes_the_stage(folders: dict[str, Path], make_verdict: MakeBundle) -> None:
    bundle = folders["registry"].parent / "one" / "bundle"
    promotion = promotion_of(folders | {"bundle": bundle, "verdict": make_verdict(bundle, compared_with="v0.2.0")})
    assert (promotion["version"], promotion["changed"]) == ("v0.1.0", True)
    assert versions(folders["registry"]) == ["v0.1.0", "v0.2.0"]
    assert assign(folders["registry"], read_history(folders["registry"], "lavin-dit").find("v0.1.0"), "production") is False
