"""Commits come from somebody's repository, and branches go to it, over git's own transports."""

import os
import subprocess
from pathlib import Path

import pytest

from components import git_remote
from components.entry import StepFailedError
from components.git_remote import GitRemote
from lavin_dit.errors import InputError
from tests.git_server import PASSWORD, USER, serve_git

FAKE_SSH = """#!/bin/sh
# Does what sshd would do, and notes how it was called.
printf '%s\\n' "$@" > {notes}/arguments
for word in "$@"; do
  case "$word" in */ssh-privatekey) stat -c %a "$word" > {notes}/mode; cp "$word" {notes}/key;; esac
  command="$word"
done
exec sh -c "$command"
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=tester", "-c", "user.email=tester@localhost", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on `main`; HEAD is at the second."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for name in ("one", "two"):
        (folder / name).write_text(name)
        git(folder, "add", name)
        git(folder, "commit", "--quiet", f"--message={name}")
    return folder


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    monkeypatch.setattr(git_remote, "GIT_FOLDER", folder)
    monkeypatch.setattr(git_remote, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def test_one_commit_comes_without_its_history(repository: Path, tmp_path: Path) -> None:
    commit = GitRemote(repository.as_uri()).fetch("main", tmp_path / "scratch")
    assert commit == git(repository, "rev-parse", "main")
    assert git(tmp_path / "scratch", "rev-list", "--count", commit) == "1"
    assert git(tmp_path / "scratch", "show", f"{commit}:two") == "two"


def test_an_older_commit_comes_by_its_full_id(repository: Path, tmp_path: Path) -> None:
    older = git(repository, "rev-parse", "main~1")
    assert GitRemote(repository.as_uri()).fetch(older, tmp_path / "scratch") == older


def test_a_folder_is_the_same_wherever_it_is_named_from(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(repository.parent)
    remote = GitRemote(repository.name)
    assert remote == GitRemote(str(repository))
    assert remote.local_folder == GitRemote(repository.as_uri()).local_folder == repository
    assert GitRemote("https://host/repository").local_folder is None
    assert remote.fetch("HEAD", tmp_path / "scratch") == git(repository, "rev-parse", "HEAD")


def test_a_branch_is_made_and_never_moved_back(repository: Path, tmp_path: Path) -> None:
    remote, scratch = GitRemote(str(repository)), tmp_path / "scratch"
    older, newer = git(repository, "rev-parse", "main~1"), remote.fetch("main", scratch)
    remote.fetch(older, scratch)
    assert not remote.has_branch("runs/one", scratch)
    remote.push(scratch, newer, "runs/one")
    assert remote.has_branch("runs/one", scratch)
    remote.push(scratch, newer, "runs/one")
    with pytest.raises(StepFailedError):
        remote.push(scratch, older, "runs/one")
    assert git(repository, "rev-parse", "runs/one") == newer


@pytest.mark.parametrize(
    "address",
    [
        "https://user:hunter2@host/repository",
        "https://hunter2@host/repository",
        "ssh://git:hunter2@host/repository",
    ],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InputError, match="put them into the Secret lavin-git") as caught:
        GitRemote(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["", "-u", "ext::sh -c id", "ext::id", "fd::17", "ftp://host/repository", "http://host/a b"])
def test_an_address_that_could_start_a_program_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="must be"):
        GitRemote(address)


@pytest.mark.parametrize("revision", ["", "-x", "main:refs/heads/main", "main^{tree}", "a..b", "a b", "@{-1}", "+main"])
def test_a_revision_that_is_more_than_a_name_is_refused(revision: str, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a branch, a tag, a full commit or HEAD"):
        GitRemote(str(repository)).fetch(revision, tmp_path / "scratch")


def test_a_transport_that_starts_a_program_stays_closed_behind_a_users_own_settings(
    repository: Path, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text(f'[protocol]\nallow = always\n[url "ext::touch {tmp_path}/ran "]\ninsteadOf = https://host/\n')
    with pytest.raises((InputError, StepFailedError)):
        GitRemote("https://host/repository").fetch("main", tmp_path / "scratch")
    assert not (tmp_path / "ran").exists()


def test_a_server_that_recovers_is_asked_again(repository: Path, secret: Path, tmp_path: Path) -> None:
    with serve_git(repository.parent, failing=2) as address:
        (secret / "credentials").write_text(f"http://{USER}:{PASSWORD}@{address.removeprefix('http://')}\n")
        assert GitRemote(f"{address}/repository").fetch("main", tmp_path / "scratch") == git(repository, "rev-parse", "main")


def test_a_server_that_does_not_is_a_failure(repository: Path, secret: Path, tmp_path: Path) -> None:
    with serve_git(repository.parent, failing=100) as address, pytest.raises(StepFailedError, match=r"cannot be reached .*503"):
        GitRemote(f"{address}/repository").fetch("main", tmp_path / "scratch")


def test_ssh_takes_the_key_of_the_secret_and_trusts_its_hosts_alone(
    repository: Path, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(FAKE_SSH.format(notes=programs))
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (secret / "ssh-privatekey").write_text("the key")
    (secret / "ssh-privatekey").chmod(0o444)
    (secret / "known_hosts").write_text("the hosts")
    commit = GitRemote(f"ssh://git@host{repository}").fetch("main", tmp_path / "scratch")
    assert commit == git(repository, "rev-parse", "main")
    arguments = (programs / "arguments").read_text()
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"):
        assert option in arguments
    assert (programs / "mode").read_text().strip() == "600"
    assert (programs / "key").read_text() == "the key"
    key = next(line for line in arguments.splitlines() if line.endswith("ssh-privatekey"))
    assert not Path(key).exists()
    assert key not in (tmp_path / "scratch" / ".git" / "config").read_text()
