import subprocess
import threading
from pathlib import Path

import pytest

from components.entry import StepFailedError
from components.registry import repository
from components.registry.repository import LOCK_NAME, MARKER_NAME, commit, is_registry, only_writer, run_dvc, run_git
from lavin_dit.errors import InputError

Snapshot = dict[str, bytes]


def snapshot(folder: Path) -> Snapshot:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_repository(folder: Path) -> Path:
    folder.mkdir()
    (folder / "work.txt").write_text("mine")
    for command in (["init", "--quiet"], ["add", "work.txt"], ["commit", "--quiet", "--message=mine"]):
        subprocess.run(["git", "-c", "user.name=me", "-c", "user.email=me@here", *command], cwd=folder, check=True)
    return folder


def make_registry(folder: Path) -> Path:
    with only_writer(folder):
        pass
    return folder


def log(folder: Path, shown: str) -> list[str]:
    return run_git(folder, "log", f"--format={shown}").splitlines()


@pytest.mark.parametrize("exists", [False, True])
def test_a_registry_is_made_where_nothing_is(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "deep" / "registry"
    if exists:
        folder.mkdir(parents=True)
    assert not is_registry(folder)
    make_registry(folder)
    assert is_registry(folder)
    assert log(folder, "%s") == ["Start the registry"]
    assert run_git(folder, "status", "--porcelain") == ""
    assert not (tmp_path / "deep" / "registry-storage" / MARKER_NAME).exists()


def test_making_it_again_changes_nothing(registry: Path) -> None:
    before = log(registry, "%H")
    make_registry(registry)
    assert log(registry, "%H") == before


def test_somebody_elses_repository_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    theirs = make_repository(tmp_path / "theirs")
    before = snapshot(theirs)
    with pytest.raises(InputError, match=r"theirs: is neither empty nor a registry"), only_writer(theirs):
        pass
    assert snapshot(theirs) == before


def test_a_file_and_a_later_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: is a file"):
        is_registry(tmp_path / "file")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / MARKER_NAME).write_text('{"format": 2}')
    with pytest.raises(InputError, match="must say format 1"):
        is_registry(tmp_path / "later")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="cannot be written to"), only_writer(tmp_path / "registry"):
        pass


@pytest.mark.parametrize("killed_after", ["lock", "marker", "git", "dvc"])
def test_a_half_made_registry_is_finished(tmp_path: Path, killed_after: str) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / LOCK_NAME).touch()
    (folder / f".{MARKER_NAME}.tmp").write_text('{"form')
    if killed_after != "lock":
        (folder / MARKER_NAME).write_text('{"format": 1}')
    if killed_after in ("git", "dvc"):
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    if killed_after == "dvc":
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\n")
    make_registry(folder)
    assert len(log(folder, "%H")) == 1
    assert "url = ../../registry-storage" in (folder / ".dvc" / "config").read_text()


def test_nothing_of_an_enclosing_hook_or_stage_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = make_repository(tmp_path / "theirs")
    before = snapshot(theirs)
    leaks = {
        "GIT_DIR": ".git",
        "GIT_INDEX_FILE": ".git/index",
        "GIT_WORK_TREE": ".",
        "GIT_OBJECT_DIRECTORY": ".git/objects",
        "DVC_ROOT": ".",
    }
    for name, path in leaks.items():
        monkeypatch.setenv(name, str(theirs / path))
    monkeypatch.setenv("GIT_AUTHOR_DATE", "@1 +0000")
    folder = make_registry(tmp_path / "registry")
    assert snapshot(theirs) == before
    assert (folder / ".git" / "HEAD").is_file()
    assert log(folder, "%at") != ["1"]


def test_git_looks_for_no_repository_above_the_registry(tmp_path: Path) -> None:
    theirs = make_repository(tmp_path / "theirs")
    (theirs / "registry").mkdir()
    with pytest.raises(StepFailedError, match="git status failed"):
        run_git(theirs / "registry", "status")


def test_who_has_told_git_no_name_commits_under_ours_and_his_settings_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    folder = make_registry(tmp_path / "registry")
    assert log(folder, "%an <%ae> %cn <%ce>") == ["LaVin pipelines <lavin@localhost> LaVin pipelines <lavin@localhost>"]
    assert settings.read_text() == ""
    assert "lavin@localhost" not in (folder / ".git" / "config").read_text()


def test_a_persons_name_is_used_and_his_hooks_and_keys_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    settings = tmp_path / "gitconfig"
    settings.write_text(
        f"[user]\n name = Ada\n email = ada@example.org\n[commit]\n gpgSign = true\n[tag]\n gpgSign = true\n[core]\n hooksPath = {hooks}\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    folder = make_registry(tmp_path / "registry")
    run_git(folder, "tag", "--annotate", "--message=x", "x", "HEAD")
    assert log(folder, "%an <%ae>") == ["Ada <ada@example.org>"]


def test_a_commit_holds_the_given_paths_only(registry: Path) -> None:
    (registry / "mine.txt").write_text("unfinished")
    run_git(registry, "add", "mine.txt")
    (registry / "README.md").write_text("x")
    made = commit(registry, ["README.md"], "Say what this is")
    assert run_git(registry, "show", "--name-only", "--format=", made) == "README.md"
    assert commit(registry, ["README.md"], "Again") == made


def test_the_locks_of_a_killed_git_are_removed(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "STALE_LOCK_S", 0.1)
    locks = [registry / ".git" / "index.lock", registry / ".git" / "refs" / "heads" / "main.lock"]
    for lock in locks:
        lock.touch()
    (registry / "README.md").write_text("x")
    with only_writer(registry):
        commit(registry, ["README.md"], "Say what this is")
    assert not any(lock.exists() for lock in locks)


def test_a_living_git_is_waited_for(registry: Path) -> None:
    lock = registry / ".git" / "index.lock"
    lock.write_text("alive")
    threading.Timer(0.3, lambda: lock.rename(registry / ".git" / "index.done")).start()
    make_registry(registry)
    assert (registry / ".git" / "index.done").read_text() == "alive"


def test_a_second_writer_waits_and_in_the_end_gives_up(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "LOCK_TIMEOUT_S", 0.2)
    refusals: list[str] = []

    def write() -> None:
        try:
            make_registry(registry)
        except InputError as error:
            refusals.append(str(error))

    with only_writer(registry), only_writer(registry):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(refusals) == 1
    assert "another promotion has held" in refusals[0]
    make_registry(registry)


def test_a_failing_command_gives_its_own_words(registry: Path) -> None:
    with pytest.raises(StepFailedError, match=r"dvc add failed \(ERROR: .*nothing-here"):
        run_dvc(registry, "add", "nothing-here")
    with pytest.raises(StepFailedError, match=r"git rev-parse failed \(fatal: .*nothing-here"):
        run_git(registry, "rev-parse", "nothing-here")
