"""Tracked data from a real git repository and a real S3 server on loopback."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from s3fs import S3FileSystem

from components import git_remote
from components.code_version import source_hash
from components.data_version import data_hash, hash_listing, hash_tree
from components.entry import StepFailedError
from components.folders import read_json
from components.op_bodies import run_prepare
from components.run_plan import plan_run
from components.run_request import RunRequest
from components.store import open_input
from components.tracked_data import Located, fetch, fetched_folder, list_names, locate, recall, remember, remember_folder
from lavin_dit.config import section_to_json
from lavin_dit.data.shards.picture_files import encode_png
from lavin_dit.errors import InputError
from tests.git_server import PASSWORD, USER, serve_git
from tests.s3_server import BUCKET, KEY, SECRET, S3Server, serve

PROGRAMS = Path(sys.executable).parent
TINY = Path(__file__).parents[1] / "tiny.yaml"
NAMES = [f"{number}_{role}.png" for number in range(20) for role in ("input", "target")]
NUM_FILES = len(NAMES)
EMPTY = hash_listing({})
DEFAULT_REMOTE = "[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n"
FETCH = """
import sys
from pathlib import Path
from components.entry import clear_errors, configure_logging
from components.folders import read_json
from components.op_bodies import run_prepare
from components.run_plan import plan_run
from components.run_request import RunRequest
from components.store import open_input
from components.tracked_data import fetch, recall
configure_logging()
with clear_errors():
    print(fetch(recall(sys.argv[1], Path(sys.argv[2])), Path(sys.argv[2])))
"""


def picture(words: str) -> bytes:
    """A small picture of its own for every text."""
    pixels = np.frombuffer(hashlib.sha256(words.encode()).digest(), np.uint8)
    return encode_png(np.tile(pixels.reshape(4, 8, 1), (8, 4, 3)))


@dataclass(frozen=True)
class Project:
    """A repository whose tag `v1` and branch `main` track different data in `data/raw`."""

    folder: Path
    s3: S3Server

    def call(self, command: str) -> str:
        environment = {**os.environ, **self.s3.environment, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(shlex.split(command), cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.call("git add --all")
        self.call(f"git commit --quiet --message {message}")
        return self.call("git rev-parse HEAD")

    def object_of(self, md5: str) -> Path:
        """Where the S3 server keeps an object."""
        return self.s3.bucket / "dvc" / "files" / "md5" / md5[:2] / md5[2:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def project(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("repositories") / "project", server)
    made.folder.mkdir()
    made.call("git init --quiet --initial-branch main")
    made.call("git config user.name tester")
    made.call("git config user.email tester@localhost")
    made.call("dvc init --quiet")
    made.call(f"dvc remote add --quiet --default store s3://{BUCKET}/dvc")
    # Whose keys, and where the store was seen from the laptop, mean nothing elsewhere.
    made.call("dvc remote modify --quiet store profile of-a-laptop")
    made.call("dvc remote modify --quiet store endpointurl http://laptop.invalid:9000")
    for version in ("v1", "v2"):
        folder = made.folder / "data" / "raw" / "mine" / "train"
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            (folder / name).write_bytes(picture(f"{version} {name}"))
        made.call("dvc add --quiet data/raw")
        made.commit(version)
        made.call(f"git tag --annotate --message {version} {version}")
    made.call(f"dvc remote add --quiet --local here s3://{BUCKET}/dvc")
    made.call("dvc push --quiet --all-commits --remote here")
    return made


@pytest.fixture(autouse=True)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_remote, "PAUSES_S", (0.0, 0.0))
    # It keeps clients by their settings, and would keep keys of an earlier test with them.
    S3FileSystem.clear_instance_cache()
    if "server" in request.fixturenames:
        for name, value in request.getfixturevalue("server").environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def located(project: Project) -> Located:
    return locate(str(project.folder), "v1", "data/raw")


def refusal(repository: object, revision: str = "main", path: str = "data/raw") -> str:
    with pytest.raises(InputError) as caught:
        list_names(locate(str(repository), revision, path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_in(workspace: Path) -> list[str]:
    """What is there beside the lock."""
    return sorted(path.name for path in (workspace / "data").iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("revision", ["v1", "main", "HEAD"])
def test_a_branch_a_tag_and_the_default_branch_become_a_full_commit_and_an_md5(project: Project, revision: str) -> None:
    located = locate(project.folder.as_uri(), revision, "data/raw")
    assert located.commit == project.call(f"git rev-parse {revision}^{{commit}}")
    tracked = project.call(f"git show {revision}:data/raw.dvc")
    assert located.md5 == re.search(r"md5: (\S+)", tracked)[1]  # type: ignore[index]


def test_a_full_commit_stands_for_itself(project: Project, located: Located) -> None:
    assert locate(project.folder.as_uri(), located.commit, "./data/raw/") == replace(
        located, repository=project.folder.as_uri(), revision=located.commit
    )


def test_the_names_are_known_without_fetching_a_file(located: Located, server: S3Server) -> None:
    before = len(server.downloads())
    assert list_names(located) == sorted(f"mine/train/{name}" for name in NAMES)
    assert [name.endswith(".dir") for name in server.downloads()[before:]] == [True]


def test_fetched_data_are_the_tracked_ones_and_nothing_else_stays(project: Project, located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    source = recall(located.md5, tmp_path)
    assert source.located == located
    folder = fetch(source, tmp_path)
    assert folder == source.folder == fetched_folder(located.md5, tmp_path)
    assert hash_tree(folder) == data_hash(folder) == located.md5
    assert (folder / "mine" / "train" / "7_input.png").read_bytes() == picture("v1 7_input.png")
    assert left_in(tmp_path) == [located.md5, f"{located.md5}.json"]
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in folder.rglob("*.png"))


def fetch_command(located: Located, workspace: Path) -> list[str]:
    return [sys.executable, "-c", FETCH, located.md5, str(workspace)]


def start_fetch(located: Located, workspace: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(fetch_command(located, workspace), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_the_same_data_once(located: Located, server: S3Server, tmp_path: Path) -> None:
    remember(located, tmp_path)
    before = len(server.downloads())
    processes = [start_fetch(located, tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert {out.splitlines()[-1] for out, _ in said} == {str(fetched_folder(located.md5, tmp_path))}
    assert sum("already fetched" in out for out, _ in said) == 1
    counts = Counter(server.downloads()[before:])
    assert len(counts) == NUM_FILES + 1
    assert set(counts.values()) == {1}


def test_a_killed_fetch_is_continued(located: Located, server: S3Server, tmp_path: Path) -> None:
    remember(located, tmp_path)
    before = len(server.downloads())
    process = start_fetch(located, tmp_path)
    partial = tmp_path / "data" / f".{located.md5}.partial"
    while not any(partial.rglob("*.png")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not fetched_folder(located.md5, tmp_path).exists()
    kept = len(list(partial.rglob("*.png")))
    assert hash_tree(fetch(recall(located.md5, tmp_path), tmp_path)) == located.md5
    counts = Counter(name for name in server.downloads()[before:] if not name.endswith(".dir"))
    assert sum(counts.values()) <= 2 * NUM_FILES - kept
    assert left_in(tmp_path) == [located.md5, f"{located.md5}.json"]


def test_what_was_damaged_here_meanwhile_is_never_mixed_in(located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    partial = tmp_path / "data" / f".{located.md5}.partial"
    (partial / "mine" / "train").mkdir(parents=True)
    (partial / "mine" / "train" / "7_input.png").write_bytes(b"damaged")
    partial.with_name(f"{partial.name}.key").write_text(located.md5)
    source = recall(located.md5, tmp_path)
    assert hash_tree(fetch(source, tmp_path)) == located.md5


def test_what_somebody_else_wrote_meanwhile_is_never_mixed_in(located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    partial = tmp_path / "data" / f".{located.md5}.partial"
    partial.mkdir(parents=True)
    (partial / "of-somebody-else.png").write_bytes(b"other")
    partial.with_name(f"{partial.name}.key").write_text(located.md5)
    source = recall(located.md5, tmp_path)
    with pytest.raises(InputError, match="something else was written beside them"):
        fetch(source, tmp_path)
    assert not source.folder.exists()
    assert hash_tree(fetch(source, tmp_path)) == located.md5


def test_a_damaged_file_in_the_store_is_an_error_and_leaves_nothing(project: Project, located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    listing = json.loads(project.object_of(located.md5).read_text())
    damaged = project.object_of(listing[3]["md5"])
    whole = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    try:
        with pytest.raises(InputError, match=f"{listing[3]['relpath']} is damaged in the DVC remote"):
            fetch(recall(located.md5, tmp_path), tmp_path)
    finally:
        damaged.write_bytes(whole)
    assert not fetched_folder(located.md5, tmp_path).exists()
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "mine/../../outside.png"])
def test_a_listing_that_leaves_its_folder_is_refused(project: Project, tmp_path: Path, name: str) -> None:
    listing = json.loads(project.object_of(locate(str(project.folder), "v1", "data/raw").md5).read_text())
    entries = {name: listing[0]["md5"]}
    evil = project.object_of(hash_listing(entries))
    evil.parent.mkdir(exist_ok=True)
    evil.write_text(json.dumps([{"md5": md5, "relpath": relpath} for relpath, md5 in entries.items()]))
    clone = tmp_path / "clone"
    project.call(f"git clone --quiet {project.folder} {clone}")
    (clone / "data" / "raw.dvc").write_text(f"outs:\n- md5: {hash_listing(entries)}\n  hash: md5\n  path: raw\n")
    replace(project, folder=clone).call("git -c user.name=a -c user.email=b commit --quiet --all --message evil")
    assert "which is no plain file inside of a folder" in refusal(clone, "HEAD")
    located = locate(str(clone), "HEAD", "data/raw")
    remember(located, tmp_path)
    with pytest.raises(InputError):
        fetch(recall(located.md5, tmp_path), tmp_path)
    assert not list(tmp_path.rglob("outside.png"))


def test_nothing_of_a_repository_is_run(project: Project, located: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    assert "must begin with one of" in refusal(f"ext::{program}")
    assert "must be the address" in refusal(f"--upload-pack={program}")
    assert "must be a branch, a tag" in refusal(project.folder, f"--upload-pack={program}")
    assert not (tmp_path / "ran").exists()


def test_a_revision_that_is_not_there_is_one_sentence(project: Project, located: Located) -> None:
    assert refusal(project.folder, "nightly") == f"revision nightly: is neither a branch nor a tag nor a commit of {project.folder}"
    assert refusal(project.folder, located.commit[:9]).endswith("a commit needs all of its 40 digits")
    assert "is neither a branch nor a tag" in refusal(project.folder, "0" * 40)


def test_a_path_that_dvc_does_not_track_as_one_folder_is_one_sentence(project: Project) -> None:
    for path in ("data/other", "data", "data/raw/mine", ".dvcignore"):
        assert f"`dvc add {path}`, `dvc push`, and commit {path}.dvc" in refusal(project.folder, path=path)
    assert "must be a path inside" in refusal(project.folder, path="/data/raw")
    assert "must be a path inside" in refusal(project.folder, path="../raw")


def test_a_repository_that_is_none_is_one_sentence(tmp_path: Path, project: Project) -> None:
    assert "is no git repository that can be seen from here" in refusal(tmp_path)
    plain = replace(project, folder=tmp_path)
    plain.call("git init --quiet")
    plain.call("git -c user.name=a -c user.email=b commit --quiet --allow-empty --message empty")
    assert "is no DVC repository" in refusal(tmp_path, "HEAD")


def test_a_repository_without_a_remote_is_one_sentence(tmp_path: Path, project: Project) -> None:
    project.call(f"git clone --quiet {project.folder} {tmp_path / 'clone'}")
    clone = replace(project, folder=tmp_path / "clone")
    (clone.folder / ".dvc" / "config").write_text("")
    clone.call("git -c user.name=a -c user.email=b commit --quiet --all --message none")
    assert "names no default remote" in refusal(clone.folder, "HEAD")


def test_a_remote_may_be_a_folder_where_the_repository_is_one(project: Project, tmp_path: Path) -> None:
    project.call(f"git clone --quiet {project.folder} {tmp_path / 'clone'}")
    clone = replace(project, folder=tmp_path / "clone")
    (clone.folder / ".dvc" / "config").write_text(DEFAULT_REMOTE.format(url="../../store"))
    clone.call("git -c user.name=a -c user.email=b commit --quiet --all --message folder")
    shutil.copytree(project.s3.bucket / "dvc", tmp_path / "store")
    located = locate(clone.folder.as_uri(), "HEAD", "data/raw")
    remember(located, tmp_path)
    assert hash_tree(fetch(recall(located.md5, tmp_path), tmp_path)) == located.md5


def test_keys_go_to_the_place_named_beside_them_or_else_to_the_repositorys(
    located: Located, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert located.remote.endpoint == "http://laptop.invalid:9000"
    assert len(list_names(located)) == NUM_FILES
    S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    there = replace(located, remote=replace(located.remote, endpoint=server.url, region="us-east-1"))
    assert len(list_names(there)) == NUM_FILES


def test_a_full_disk_is_one_line(located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    limited = ["prlimit", "--fsize=1000", *fetch_command(located, tmp_path)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("lavin: failed: disk full")


def test_a_fetch_tells_how_far_it_is(located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    said, _ = start_fetch(located, tmp_path).communicate()
    assert re.search(rf"^progress: fetch files {NUM_FILES}/{NUM_FILES} ", said, re.MULTILINE)


def test_no_key_is_written_anywhere(located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    fetch(recall(located.md5, tmp_path), tmp_path)
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(word.encode() in text for text in texts for word in (KEY, SECRET))


def test_wrong_keys_and_none_are_one_sentence(located: Located, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "wrong-word")
        said = refusal(located.repository)
        assert "refuses the keys, or needs some" in said
        assert "Secret lavin-object-store" in said
        assert "wrong-word" not in said
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "refuses the keys, or needs some" in refusal(located.repository)


def test_data_that_were_never_pushed_are_one_sentence(project: Project, located: Located, tmp_path: Path) -> None:
    kept = project.object_of(located.md5)
    away = kept.rename(tmp_path / "away")
    try:
        assert "does not hold" in refusal(project.folder, "v1")
    finally:
        away.rename(kept)


def test_a_store_that_is_down_is_a_failure_and_no_mistake(located: Located, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StepFailedError, match="cannot be reached"):
        list_names(located)


def test_a_git_server_that_is_down_is_a_failure_and_no_mistake() -> None:
    with pytest.raises(StepFailedError, match="cannot be reached"):
        locate("http://127.0.0.1:9/repository", "main", "data/raw")


def test_git_credentials_come_from_the_secret_alone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, located: Located
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    monkeypatch.setattr(git_remote, "GIT_FOLDER", secret)
    monkeypatch.setenv("HOME", str(tmp_path))
    with serve_git(project.folder.parent) as address:
        url = f"{address}/{project.folder.name}"
        assert "they belong into the Secret lavin-git" in refusal(url)
        host = address.removeprefix("http://")
        (secret / "credentials").write_text(f"http://{USER}:wrong@{host}\n")
        assert "wrong" not in refusal(url).replace("wrong@", "")
        (secret / "credentials").write_text(f"http://{USER}:{PASSWORD}@{host}\n")
        assert locate(url, "v1", "data/raw").md5 == located.md5
        assert "is no git repository that can be seen" in refusal(f"{address}/nothing")
        with_password = refusal(url.replace("http://", f"http://{USER}:{PASSWORD}@"))
    assert "Secret lavin-git" in with_password
    assert PASSWORD not in with_password
    assert (secret / "credentials").read_text() == f"http://{USER}:{PASSWORD}@{host}\n"


def test_a_plain_folder_is_remembered_and_needs_no_fetching(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.png").write_bytes(b"a")
    md5 = data_hash(raw)
    remember_folder(raw, md5, tmp_path)
    source = recall(md5, tmp_path)
    assert source.located is None
    assert source.folder == fetch(source, tmp_path) == raw


def test_a_plain_folder_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    remember_folder(tmp_path / "raw", EMPTY, tmp_path)
    (tmp_path / "raw").mkdir()
    assert fetch(recall(EMPTY, tmp_path), tmp_path) == tmp_path / "raw"
    (tmp_path / "raw" / "a.png").write_bytes(b"a")
    with pytest.raises(InputError, match="have changed since the run was checked"):
        fetch(recall(EMPTY, tmp_path), tmp_path)


def test_an_unknown_hash_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is known of them .*run again from the first step"):
        recall(EMPTY, tmp_path)
    with pytest.raises(InputError, match="is no hash"):
        recall("../elsewhere", tmp_path)


def test_data_that_were_removed_are_fetched_again(located: Located, tmp_path: Path) -> None:
    remember(located, tmp_path)
    shutil.rmtree(fetch(recall(located.md5, tmp_path), tmp_path))
    assert hash_tree(fetch(recall(located.md5, tmp_path), tmp_path)) == located.md5


def prepare(project: Project, revision: str, workspace: Path, request: RunRequest) -> Path:
    """The shards of a run on the data of that revision, as the first two steps make them."""
    asked = replace(request, data_repository=project.folder.as_uri(), data_revision=revision, raw="data/raw")
    config = asked.config()
    data = plan_run(config, asked, workspace=workspace, plan=workspace / "plan")
    run_prepare(
        section=section_to_json(config.prepare),
        code=source_hash(),
        data_hash=data.hash,
        workspace=str(workspace),
        shards=str(workspace / "shards"),
    )
    return open_input(workspace / "shards")


@pytest.fixture
def request_of_tiny(monkeypatch: pytest.MonkeyPatch) -> RunRequest:
    monkeypatch.setattr("components.op_bodies.configure_logging", lambda: None)
    monkeypatch.setattr("components.op_bodies.stop_when_nobody_reads", lambda: None)
    monkeypatch.delenv("LAVIN_RUN_ID", raising=False)
    left_out = {field.name: "" for field in fields(RunRequest)}
    numbers = {"nodes": 1, "min_nodes": 0, "processes_per_node": 1}
    chosen = {"params": TINY.read_text(), "overrides": [], "launcher": "local", "accelerator": "cpu"}
    return RunRequest(**{**left_out, **numbers, **chosen})  # type: ignore[arg-type]


def test_a_run_prepares_what_the_revision_tracks_and_fetches_it_once(
    project: Project, server: S3Server, request_of_tiny: RunRequest, tmp_path: Path
) -> None:
    first = prepare(project, "v1", tmp_path, request_of_tiny)
    counts = read_json(first / "manifest.json")["tasks"]["mine"]
    assert counts["train"] + counts["test"] == NUM_FILES // 2
    before = len(server.downloads())
    assert prepare(project, "v1", tmp_path, request_of_tiny) == first
    # Data that are there, and shards of data that were removed since, need no fetching.
    shutil.rmtree(fetched_folder(locate(str(project.folder), "v1", "data/raw").md5, tmp_path))
    assert prepare(project, "v1", tmp_path, request_of_tiny) == first
    assert [name.endswith(".dir") for name in server.downloads()[before:]] == [True]
    assert prepare(project, "main", tmp_path, request_of_tiny) != first
