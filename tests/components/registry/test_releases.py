import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.folders import read_json
from components.registry import releases
from components.registry.history import read_history
from components.registry.releases import Release, assign, read_release_file, register, roll_back
from components.registry.repository import run_git
from lavin_dit.errors import InputError
from lavin_dit.export.integrity import checksums_digest, verify_checksums, write_checksums

MakeBundle = Callable[..., Path]

DIES = """
import os, signal, sys
from pathlib import Path
from components.registry import releases

def dying(function):
    def run(*arguments, **options):
        function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return run

registry, bundle, point = sys.argv[1:]
setattr(releases, point, dying(getattr(releases, point)))
version, _ = releases.register(Path(registry), releases.Release("lavin-dit", Path(bundle), {"tasks": {}}))
releases.assign(Path(registry), version, "production")
"""
REGISTERS = """
import sys
from pathlib import Path
from components.registry.releases import Release, assign, register
registry, bundle = map(Path, sys.argv[1:])
assign(registry, register(registry, Release("lavin-dit", bundle, None))[0], "production")
"""


def tags(registry: Path) -> list[str]:
    return run_git(registry, "tag", "--list").splitlines()


def fetch(registry: Path, to: Path, *wanted: str) -> Path:
    command = [sys.executable, "-m", "dvc", "artifacts", "get", str(registry), "lavin-dit", *wanted, "--out", str(to)]
    subprocess.run(command, check=True, capture_output=True, cwd=to.parent)
    return to


def test_dvc_fetches_the_bundle_of_a_stage_and_of_a_version(registry: Path, tmp_path: Path) -> None:
    in_production = fetch(registry, tmp_path / "in-production", "--stage", "production")
    verify_checksums(in_production)
    assert checksums_digest(in_production) == checksums_digest(registry.parent / "two" / "bundle")
    first = fetch(registry, tmp_path / "first", "--rev", "v0.1.0")
    assert checksums_digest(first) == checksums_digest(registry.parent / "one" / "bundle")


def test_dvc_fetches_what_was_rolled_back_to(registry: Path, tmp_path: Path) -> None:
    roll_back(registry, "lavin-dit", "production")
    fetched = fetch(registry, tmp_path / "fetched", "--stage", "production")
    assert checksums_digest(fetched) == checksums_digest(registry.parent / "one" / "bundle")


def test_the_same_bundle_is_registered_once(registry: Path, tmp_path: Path) -> None:
    before = tags(registry)
    twin = shutil.copytree(registry.parent / "one" / "bundle", tmp_path / "twin")
    version, is_new = register(registry, Release("lavin-dit", twin, {"tasks": {}}))
    assert (version.version, is_new) == ("v0.1.0", False)
    assert tags(registry) == before


def test_a_new_bundle_is_the_next_minor_version_and_its_commit_holds_the_copies(
    registry: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle(tmp_path / "bundle", words="three")
    version, is_new = register(registry, Release("lavin-dit", bundle, {"loss": float("nan")}, forced="the gate\nis wrong"))
    assert (str(version), is_new, version.forced) == ("lavin-dit@v0.3.0", True, "the gate is wrong")
    assert version.commit == run_git(registry, "rev-parse", "HEAD")
    for name in ("bundle.json", "model_card.md", "SHA256SUMS"):
        assert read_release_file(registry, version, name) == (bundle / name).read_text()
    assert read_release_file(registry, version, "metrics.json") == '{\n  "loss": null\n}\n'
    assert f"Bundle: {checksums_digest(bundle)}\nForced: the gate is wrong" in run_git(registry, "log", "-1", "--format=%B")
    assert run_git(registry, "status", "--porcelain") == ""


def test_a_bundle_without_metrics_does_not_inherit_those_of_the_version_before(
    registry: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    version, _ = register(registry, Release("lavin-dit", make_bundle(tmp_path / "bundle", words="three"), None, forced="why"))
    assert read_release_file(registry, version, "metrics.json") is None
    assert read_release_file(registry, read_history(registry, "lavin-dit").find("v0.2.0"), "metrics.json")


def test_two_names_live_side_by_side(registry: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    version, _ = register(registry, Release("other-model", make_bundle(tmp_path / "bundle", words="three"), None))
    assert str(version) == "other-model@v0.1.0"
    assert set(yaml.safe_load((registry / "dvc.yaml").read_text())["artifacts"]) == {"lavin-dit", "other-model"}
    assert len(read_history(registry, "lavin-dit").versions) == 2


def test_what_people_wrote_into_dvc_yaml_stays(registry: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    document = yaml.safe_load((registry / "dvc.yaml").read_text())
    document["artifacts"]["lavin-dit"]["desc"] = "Ours"
    (registry / "dvc.yaml").write_text(yaml.safe_dump(document))
    register(registry, Release("lavin-dit", make_bundle(tmp_path / "bundle", words="three"), None))
    assert yaml.safe_load(run_git(registry, "show", "HEAD:dvc.yaml"))["artifacts"]["lavin-dit"]["desc"] == "Ours"


def test_a_withdrawn_number_is_not_given_out_again(registry: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    run_git(registry, "tag", "--annotate", "--message=x", "lavin-dit@v0.2.0!", "lavin-dit@v0.2.0^{}")
    version, _ = register(registry, Release("lavin-dit", make_bundle(tmp_path / "bundle", words="three"), None))
    assert version.version == "v0.3.0"


def test_a_changed_bundle_is_refused(registry: Path) -> None:
    bundle = registry.parent / "two" / "bundle"
    (bundle / "dit_velocity.onnx").write_bytes(b"tampered")
    with pytest.raises(InputError, match=r"dit_velocity\.onnx: has changed"):
        register(registry, Release("lavin-dit", bundle, None))


@pytest.mark.parametrize("covers_traces", [False, True])
def test_a_bundle_that_changes_while_it_is_stored_is_refused(
    registry: Path, tmp_path: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, covers_traces: bool
) -> None:
    bundle = make_bundle(tmp_path / "bundle", words="three")
    run_dvc = releases.run_dvc

    def change_then_run(folder: Path, *arguments: str) -> None:
        (bundle / "dit_velocity.onnx").write_bytes(b"tampered")
        if covers_traces:
            write_checksums(bundle)
        run_dvc(folder, *arguments)

    monkeypatch.setattr(releases, "run_dvc", change_then_run)
    before = tags(registry)
    with pytest.raises(InputError, match="changed"):
        register(registry, Release("lavin-dit", bundle, None))
    assert tags(registry) == before


@pytest.mark.parametrize("name", ["lavin-", "-lavin", "lavin@dit", "a b", ""])
def test_a_name_that_gto_would_not_know_again_is_refused(registry: Path, name: str) -> None:
    with pytest.raises(InputError, match="must begin and end with a letter or a digit"):
        register(registry, Release(name, registry.parent / "two" / "bundle", None))


def test_a_version_in_its_stage_already_is_not_assigned_again(registry: Path) -> None:
    before = tags(registry)
    assert not assign(registry, read_history(registry, "lavin-dit").find("v0.2.0"), "production")
    assert tags(registry) == before


def test_assignments_within_a_second_keep_their_order(registry: Path) -> None:
    known = read_history(registry, "lavin-dit")
    for _ in range(5):
        for version in known.versions:
            assert assign(registry, version, "production")
    later = read_history(registry, "lavin-dit")
    times = [assignment.time for assignment in later.assignments]
    assert times == sorted(set(times))
    assert [assignment.number for assignment in later.assignments] == list(range(1, 13))
    assert later.in_stage("production") == known.versions[1]


def test_a_second_rollback_goes_further_back_and_a_third_is_refused(registry: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    third, _ = register(registry, Release("lavin-dit", make_bundle(tmp_path / "bundle", words="three"), None))
    assign(registry, third, "production")
    for expected in (("v0.3.0", "v0.2.0"), ("v0.2.0", "v0.1.0")):
        present, target = roll_back(registry, "lavin-dit", "production")
        assert (present.version, target.version) == expected
        assert read_history(registry, "lavin-dit").in_stage("production") == target
    with pytest.raises(InputError, match=r"lavin-dit@v0\.1\.0 is the first version in it"):
        roll_back(registry, "lavin-dit", "production")


def test_a_rollback_goes_to_an_earlier_version_by_name_and_to_no_other(registry: Path) -> None:
    with pytest.raises(InputError, match=r"--to v0\.3\.0: was not in production before v0\.2\.0; allowed: v0\.1\.0"):
        roll_back(registry, "lavin-dit", "production", to="v0.3.0")
    with pytest.raises(InputError, match=r"--to v0\.2\.0"):
        roll_back(registry, "lavin-dit", "production", to="v0.2.0")
    assert roll_back(registry, "lavin-dit", "production", to="v0.1.0")[1].version == "v0.1.0"


def test_an_empty_stage_cannot_be_rolled_back(registry: Path) -> None:
    with pytest.raises(InputError, match="no version of lavin-dit is in it"):
        roll_back(registry, "lavin-dit", "staging")


@pytest.mark.parametrize("point", ["_copy_small_files", "run_dvc", "commit", "_tag"])
def test_a_killed_promotion_is_finished_by_the_next(registry: Path, tmp_path: Path, make_bundle: MakeBundle, point: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", words="three")
    killed = subprocess.run([sys.executable, "-c", DIES, str(registry), str(bundle), point], check=False)
    assert killed.returncode == -signal.SIGKILL
    version, _ = register(registry, Release("lavin-dit", bundle, {"tasks": {}}))
    assign(registry, version, "production")
    known = read_history(registry, "lavin-dit")
    assert [version.version for version in known.versions] == ["v0.1.0", "v0.2.0", "v0.3.0"]
    assert known.trail("production") == ["v0.1.0", "v0.2.0", "v0.3.0"]
    assert run_git(registry, "status", "--porcelain") == ""
    run_git(registry, "fsck", "--strict")


def test_a_killed_promotion_does_not_mix_into_that_of_another_bundle(registry: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    first, second = (make_bundle(tmp_path / words / "bundle", words=words) for words in ("three", "four"))
    subprocess.run([sys.executable, "-c", DIES, str(registry), str(first), "commit"], check=False)
    version, _ = register(registry, Release("lavin-dit", second, None))
    assert version.version == "v0.3.0"
    assert checksums_digest(fetch(registry, tmp_path / "fetched", "--rev", "v0.3.0")) == checksums_digest(second)
    assert read_release_file(registry, version, "metrics.json") is None


def test_promotions_at_once_each_get_a_version(tmp_path: Path, make_bundle: MakeBundle) -> None:
    """Into a registry that neither finds made."""
    bundles = [make_bundle(tmp_path / words / "bundle", words=words) for words in ("one", "two")]
    running = [subprocess.Popen([sys.executable, "-c", REGISTERS, str(tmp_path / "registry"), str(bundle)]) for bundle in bundles]
    assert [process.wait() for process in running] == [0, 0]
    known = read_history(tmp_path / "registry", "lavin-dit")
    assert [version.version for version in known.versions] == ["v0.1.0", "v0.2.0"]
    assert sorted(known.trail("production")) == ["v0.1.0", "v0.2.0"]
    assert len({read_release_file(tmp_path / "registry", version, "SHA256SUMS") for version in known.versions}) == 2


def test_a_remote_that_people_configured_is_used(registry: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    config = (registry / ".dvc" / "config").read_text()
    (registry / ".dvc" / "config").write_text(
        f"{config}['remote \"mine\"']\n    url = {tmp_path / 'mine'}\n".replace("= storage", "= mine")
    )
    register(registry, Release("lavin-dit", make_bundle(tmp_path / "bundle", words="three"), None))
    assert any((tmp_path / "mine").rglob("*.dir"))


def test_the_metrics_of_production_are_read_without_its_bundle(registry: Path) -> None:
    shutil.rmtree(registry.parent / "registry-storage")
    version = read_history(registry, "lavin-dit").in_stage("production")
    assert version
    text = read_release_file(registry, version, "metrics.json")
    assert text is not None
    (registry.parent / "copy.json").write_text(text)
    assert read_json(registry.parent / "copy.json")["tasks"]["depth"]["model"]["abs_rel"] == 0.2
