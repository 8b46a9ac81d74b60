import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.registry.history import read_history
from components.registry.releases import roll_back
from lavin_dit.errors import InputError
from pipelines import promotion

MakeBundle = Callable[..., Path]

app = typer.Typer()
for command in (promotion.promote, promotion.rollback, promotion.history):
    app.command()(command)


def lavin(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*words: object) -> str:
    with pytest.raises(InputError) as caught:
        lavin(*words)
    return str(caught.value)


@pytest.fixture
def bundle(registry: Path, tmp_path: Path, make_bundle: MakeBundle, make_verdict: MakeBundle) -> Path:
    folder = make_bundle(tmp_path / "run" / "bundle", words="three")
    make_verdict(folder, compared_with="v0.2.0", abs_rel=0.1)
    return folder


def test_a_bundle_is_promoted_with_the_verdict_beside_it(registry: Path, bundle: Path) -> None:
    assert lavin("promote", bundle, "--registry", registry) == "lavin-dit@v0.3.0 is in production now (before: v0.2.0)\n"
    assert lavin("promote", bundle, "--registry", registry) == "lavin-dit@v0.3.0 is in production already\n"


def test_the_first_promotion_makes_the_registry(tmp_path: Path, bundle: Path, make_verdict: MakeBundle) -> None:
    verdict = make_verdict(bundle) / "verdict.json"
    moved = verdict.rename(tmp_path / "verdict.json")
    (bundle.parent / "verdict" / "metrics.json").rename(tmp_path / "metrics.json")
    told = lavin("promote", bundle, "--registry", tmp_path / "new", "--stage", "staging", "--name", "mine", "--verdict", moved)
    assert told == "mine@v0.1.0 is in staging now\n"


def test_a_registered_version_is_promoted_by_its_number(registry: Path) -> None:
    assert lavin("promote", "lavin-dit@v0.1.0", "--registry", registry) == "lavin-dit@v0.1.0 is in production now (before: v0.2.0)\n"
    assert lavin("promote", "lavin-dit@v0.1.0", "--registry", registry) == "lavin-dit@v0.1.0 is in production already\n"
    assert lavin("promote", "lavin-dit@v0.1.0", "--registry", registry, "--stage", "staging") == "lavin-dit@v0.1.0 is in staging now\n"


def test_what_cannot_be_promoted_is_refused(registry: Path, bundle: Path, tmp_path: Path, make_verdict: MakeBundle) -> None:
    assert "is not registered; registered: v0.1.0, v0.2.0" in refusal("promote", "lavin-dit@v9.0.0", "--registry", registry)
    assert "must be a bundle's folder, or a registered version" in refusal("promote", tmp_path / "absent", "--registry", registry)
    assert "--verdict x: goes with a bundle's folder" in refusal("promote", "lavin-dit@v0.1.0", "--registry", registry, "--verdict", "x")
    assert "--force: needs a reason" in refusal("promote", bundle, "--registry", registry, "--force", " ")
    assert "neither empty nor a registry" in refusal("promote", bundle, "--registry", bundle.parent)
    absent = ("--registry", registry, "--verdict", tmp_path / "absent")
    assert "there is no verdict on" in refusal("promote", bundle, *absent)
    make_verdict(bundle, passed=False)
    assert "the gate refused this bundle" in refusal("promote", bundle, "--registry", registry)


def test_a_forced_promotion_shows_its_reason_in_the_history(registry: Path, bundle: Path, make_verdict: MakeBundle) -> None:
    make_verdict(bundle, passed=False)
    lavin("promote", bundle, "--registry", registry, "--force", "hot fix")
    shown = lavin("history", "--registry", registry)
    assert "(forced: hot fix)" in shown
    assert "forced: hot fix" in shown.splitlines()[-3]


def test_a_rollback_says_from_where_to_where(registry: Path) -> None:
    assert lavin("rollback", "--registry", registry) == "lavin-dit in production: from v0.2.0 back to v0.1.0\n"
    assert "nothing to go back to" in refusal("rollback", "--registry", registry)
    lavin("promote", "lavin-dit@v0.2.0", "--registry", registry)
    assert lavin("rollback", "--registry", registry, "--to", "v0.1.0") == "lavin-dit in production: from v0.2.0 back to v0.1.0\n"


@pytest.mark.parametrize("command", ["rollback", "history"])
def test_without_a_registry_there_is_nothing_to_tell(tmp_path: Path, command: str) -> None:
    assert "holds no registry" in refusal(command, "--registry", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_history_shows_versions_and_changes_newest_first(registry: Path) -> None:
    roll_back(registry, "lavin-dit", "production")
    lines = lavin("history", "--registry", registry).splitlines()
    columns = [line.split() for line in lines]
    assert columns[0] == ["version", "stage", "registered", "commit", "beat", "baselines", "metrics"]
    assert columns[1][0] == "v0.2.0"
    assert columns[2][:2] == ["v0.1.0", "production"]
    assert lines[2].endswith("2 of 2          denoising psnr 20, depth abs_rel 0.3")
    assert [line[0] for line in columns[5:]] == ["3", "2", "1"]
    assert lines[5].endswith("production  v0.1.0   rolled back from v0.2.0")


def test_the_history_of_an_unknown_name_is_refused(registry: Path) -> None:
    assert "has no version of other" in refusal("history", "--registry", registry, "--name", "other")


def test_the_history_as_json_holds_everything(registry: Path) -> None:
    document = json.loads(lavin("history", "--registry", registry, "--json"))
    known = read_history(registry, "lavin-dit")
    assert [version["commit"] for version in document["versions"]] == [version.commit for version in known.versions]
    assert document["versions"][1]["stages"] == ["production"]
    assert document["versions"][1]["metrics"]["tasks"]["depth"]["model"]["delta1"] == 0.8
    assert [assignment["version"] for assignment in document["assignments"]] == ["v0.1.0", "v0.2.0"]


def test_on_a_terminal_the_history_is_a_table_that_keeps_brackets(
    registry: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lavin("promote", bundle, "--registry", registry, "--force", "[bold] claims")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    promotion.history(registry, "lavin-dit", as_json=False)
    shown = capsys.readouterr().out
    assert "\x1b[" in shown
    assert "[bold] claims" in " ".join(shown.split())
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in shown.splitlines()) <= 100
