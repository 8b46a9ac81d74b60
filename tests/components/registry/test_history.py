import subprocess
from pathlib import Path

import pytest

from components.registry.history import Assignment, History, Version, read_history, timestamp
from components.registry.repository import run_git
from lavin_dit.errors import InputError


def history_of(*steps: str | tuple[str, str] | None) -> History:
    """A version stands for its promotion, a pair for a rollback (to, from), None for GTO's own unassignment."""
    assignments = []
    for number, step in enumerate(steps, start=1):
        version, rolled_back_from = step if isinstance(step, tuple) else (step, None)
        assignments.append(Assignment(number, "production", version, number, None, rolled_back_from))
    versions = tuple(Version("m", f"v0.{number}.0", str(number), number, None) for number in range(1, 5))
    return History("m", versions, tuple(assignments))


def test_promotions_add_to_the_trail() -> None:
    assert history_of("v0.1.0", "v0.2.0", "v0.3.0").trail("production") == ["v0.1.0", "v0.2.0", "v0.3.0"]


def test_a_rollback_takes_away_what_it_undid() -> None:
    steps = ("v0.1.0", "v0.2.0", "v0.3.0", ("v0.2.0", "v0.3.0"))
    assert history_of(*steps).trail("production") == ["v0.1.0", "v0.2.0"]
    assert history_of(*steps, ("v0.1.0", "v0.2.0")).trail("production") == ["v0.1.0"]


def test_a_promotion_after_a_rollback_continues_from_there() -> None:
    assert history_of("v0.1.0", "v0.2.0", ("v0.1.0", "v0.2.0"), "v0.3.0").trail("production") == ["v0.1.0", "v0.3.0"]


def test_an_older_version_promoted_again_is_no_rollback() -> None:
    assert history_of("v0.1.0", "v0.2.0", "v0.1.0").trail("production") == ["v0.1.0", "v0.2.0", "v0.1.0"]


def test_a_rollback_past_repeated_versions_goes_to_the_latest_of_them() -> None:
    steps = ("v0.1.0", "v0.2.0", "v0.1.0", "v0.3.0", ("v0.1.0", "v0.3.0"))
    assert history_of(*steps).trail("production") == ["v0.1.0", "v0.2.0", "v0.1.0"]


def test_the_same_version_twice_in_a_row_counts_once() -> None:
    assert history_of("v0.1.0", "v0.1.0").trail("production") == ["v0.1.0"]


def test_an_emptied_stage_holds_nothing() -> None:
    emptied = history_of("v0.1.0", None)
    assert emptied.in_stage("production") is None
    assert history_of("v0.1.0", None, "v0.2.0").trail("production") == ["v0.2.0"]


def test_stages_know_nothing_of_each_other() -> None:
    production = history_of("v0.1.0", "v0.2.0")
    staged = Assignment(3, "staging", "v0.1.0", 3, None, None)
    both = History("m", production.versions, (*production.assignments, staged))
    assert both.trail("production") == ["v0.1.0", "v0.2.0"]
    assert both.stages_of(both.find("v0.1.0")) == ("staging",)
    assert both.stages_of(both.find("v0.2.0")) == ("production",)
    assert both.in_stage("elsewhere") is None


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"m@v9\.0\.0: is not registered; registered: v0\.1\.0, v0\.2\.0"):
        history_of().find("v9.0.0")


def test_no_registry_has_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "absent", "lavin-dit") == History("lavin-dit", (), ())


def test_tags_tell_versions_and_stages(registry: Path) -> None:
    known = read_history(registry, "lavin-dit")
    assert [str(version) for version in known.versions] == ["lavin-dit@v0.1.0", "lavin-dit@v0.2.0"]
    assert known.trail("production") == ["v0.1.0", "v0.2.0"]
    assert known.versions[1].commit == run_git(registry, "rev-parse", "HEAD")
    assert read_history(registry, "another").versions == ()


def test_tags_that_are_not_gtos_or_not_annotated_are_passed_over(registry: Path) -> None:
    before = read_history(registry, "lavin-dit")
    run_git(registry, "tag", "lavin-dit@v7.0.0")
    run_git(registry, "tag", "--annotate", "--message=x", "release-7")
    run_git(registry, "tag", "--annotate", "--message=x", "lavin-dit@deprecated")
    assert read_history(registry, "lavin-dit") == before


def test_versions_are_ordered_by_number_not_by_letter(registry: Path) -> None:
    for version in ("v0.10.0", "v0.9.0"):
        run_git(registry, "commit", "--quiet", "--allow-empty", "--message=x")
        run_git(registry, "tag", "--annotate", "--message=x", f"lavin-dit@{version}")
    assert [version.version for version in read_history(registry, "lavin-dit").versions] == ["v0.1.0", "v0.2.0", "v0.9.0", "v0.10.0"]


def test_what_gto_takes_back_is_taken_back(registry: Path) -> None:
    run_git(registry, "tag", "--annotate", "--message=x", "lavin-dit@v0.2.0!", "lavin-dit@v0.2.0^{}")
    known = read_history(registry, "lavin-dit")
    assert [version.version for version in known.versions] == ["v0.1.0"]
    assert known.trail("production") == ["v0.1.0"]
    run_git(registry, "tag", "--annotate", "--message=x", "lavin-dit#production!#3", "lavin-dit@v0.1.0^{}")
    assert read_history(registry, "lavin-dit").in_stage("production") is None


def test_gto_itself_reads_the_same(registry: Path) -> None:
    import gto.api

    shown = gto.api.show(str(registry))["lavin-dit"]
    assert shown["version"] == "v0.2.0"
    assert shown["stage"] == {"production": "v0.2.0"}


def test_times_are_utc() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00Z"


def test_a_clone_tells_the_same(registry: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(registry), str(tmp_path / "clone")], check=True)
    assert read_history(tmp_path / "clone", "lavin-dit") == read_history(registry, "lavin-dit")
