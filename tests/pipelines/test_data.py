"""`lavin data` in a real git repository, with a real S3 server on loopback as its DVC remote: the life of docs/data.md."""

import hashlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import typer
from s3fs import S3FileSystem
from typer.testing import CliRunner

from components import dataset_adding
from components.data_version import hash_tree
from components.dataset_checkout import open_checkout
from components.entry import StepFailedError
from lavin_dit.data.shards.picture_files import encode_png
from lavin_dit.data.shards.shard_set import SPLITS, write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair
from lavin_dit.errors import InputError
from pipelines.data import data
from tests.s3_server import BUCKET, SECRET, S3Server, serve

PROGRAMS = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"
LAVIN_DATA = """
from components.entry import clear_errors, configure_logging
from pipelines.data import data
configure_logging()
with clear_errors():
    data()
"""
MANY = 200


def picture(words: str) -> bytes:
    """A small picture of its own for every text."""
    pixels = np.frombuffer(hashlib.sha256(words.encode()).digest(), np.uint8)
    return encode_png(np.tile(pixels.reshape(4, 8, 1), (8, 4, 3)))


def write_pairs(folder: Path, names: range, *, words: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for role in ("input", "target"):
            (folder / f"{name}_{role}.png").write_bytes(picture(f"{words}{name}{role}"))
    return folder


@dataclass(frozen=True)
class Project:
    """A person's clone of a repository with a remote in the S3 server."""

    folder: Path
    s3: S3Server

    @property
    def raw(self) -> Path:
        return self.folder / "data" / "raw"

    def call(self, command: str) -> str:
        environment = {**os.environ, **self.s3.environment, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(shlex.split(command), cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def data(self, *words: object) -> str:
        """Runs `lavin data` here; what it raises comes through."""
        app = typer.Typer(pretty_exceptions_enable=False)
        app.add_typer(data, name="data")
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return CliRunner().invoke(app, ["data", *map(str, words)], catch_exceptions=False).stdout
        finally:
            os.chdir(before)

    def refused(self, *words: object) -> str:
        with pytest.raises(InputError) as caught:
            self.data(*words)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", LAVIN_DATA, *words]
        environment = {**os.environ, **self.s3.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'model'}", "LAVIN_PROGRESS_SECONDS": "0"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def commit(self, message: str) -> str:
        self.call(f"git commit --quiet --all --message '{message}'")
        return self.call("git rev-parse HEAD")

    def clone(self, folder: Path) -> "Project":
        self.call(f"git clone --quiet {self.folder} {folder}")
        made = replace(self, folder=folder)
        made.call("git config user.name other")
        made.call("git config user.email other@localhost")
        return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    S3FileSystem.clear_instance_cache()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def fresh(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with a remote and no data yet."""
    made = Project(tmp_path_factory.mktemp("fresh") / "project", server)
    made.folder.mkdir()
    shutil.copyfile(TINY, made.folder / "params.yaml")
    (made.folder / ".gitignore").write_text("/data/raw/\n")
    for command in (
        "git init --quiet --initial-branch main",
        "git config user.name tester",
        "git config user.email tester@localhost",
        "dvc init --quiet",
        f"dvc remote add --quiet --default store s3://{BUCKET}/dvc",
        "git add --all",
        "git commit --quiet --message start",
    ):
        made.call(command)
    return made


@pytest.fixture
def project(fresh: Project, tmp_path: Path) -> Project:
    """One's own copy of it, with an empty remote."""
    shutil.copytree(fresh.folder, tmp_path / "project")
    shutil.rmtree(fresh.s3.bucket / "dvc", ignore_errors=True)
    return replace(fresh, folder=tmp_path / "project")


def in_remote(project: Project) -> list[str]:
    return sorted(path.name for path in (project.s3.bucket / "dvc").rglob("*") if path.is_file())


def table(printed: str) -> list[list[str]]:
    """The rows of changes."""
    return [line.split() for line in printed.splitlines() if re.search(r"\d +\d+ +\d+$", line)]


def test_the_life_of_a_data_set(project: Project, tmp_path: Path) -> None:
    # First version.
    said = project.data("add", write_pairs(tmp_path / "depth", range(3)), "--task", "depth")
    assert "checked 3 new pairs" in said
    assert "git commit" in said
    assert sorted(path.name for path in (project.raw / "depth" / "train").iterdir())[:2] == ["0_input.png", "0_target.png"]
    said = project.data("status")
    assert table(said) == [["depth", "train", "pairs", "3", "0", "0"]]
    assert "tracked: yes" in said
    assert "committed: no" in said
    assert "pushed: no" in said
    first = project.commit("v1")
    project.data("push")
    said = project.data("status")
    assert "nothing differs" in said
    assert f"pushed: yes, to s3://{BUCKET}/dvc" in said

    # A fix.
    fixed = write_pairs(tmp_path / "fixed", range(1, 2), words="better")
    (fixed / "1_input.png").write_bytes(picture("1input"))
    assert "depth/train/1_target.png already, with other content; --replace" in project.refused("add", fixed, "--task", "depth")
    project.data("add", fixed, "--task", "depth", "--replace")
    assert table(project.data("diff", "HEAD")) == [["depth", "train", "pairs", "0", "0", "1"]]
    second = project.commit("fix")

    # A new task, photographs, and something thrown away by hand.
    test_pairs = write_pairs(tmp_path / "mine", range(2))
    project.data("add", test_pairs, "--task", "mine", "--split", "test")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture("a"))
    project.data("add", tmp_path / "photos", "--task", "photos")
    (project.raw / "depth" / "train" / "0_input.png").unlink()
    (project.raw / "depth" / "train" / "0_target.png").unlink()
    assert "tracked: no" in project.data("status")
    assert "are not those of its tracked version" in project.refused("add", tmp_path / "photos", "--task", "photos")
    project.data("add", "data/raw")
    third = project.commit("more")
    rows = [["depth", "train", "pairs", "0", "1", "0"], ["mine", "test", "pairs", "2", "0", "0"], ["photos", "photographs", "1", "0", "0"]]
    assert table(project.data("diff", second, third)) == rows
    project.data("push", "--all")

    # A colleague sees all of it without checking anything out, and goes back.
    other = project.clone(tmp_path / "other")
    page = tmp_path / "page.html"
    assert table(other.data("diff", first, third, "--html", page)) == [["depth", "train", "pairs", "0", "1", "1"], *rows[1:]]
    assert not other.raw.exists()
    assert page.read_text().count("data:image/png") == 2 + 4 + 4 + 1
    assert "is not here; `lavin data pull`" in other.refused("status")
    assert "is not here; `lavin data pull`" in other.refused("add", fixed, "--task", "depth")
    other.data("pull")
    assert hash_tree(other.raw) == hash_tree(project.raw)
    other.call(f"git checkout --quiet {first} -- data/raw.dvc")
    assert "committed: no" in other.data("status")
    other.data("pull")
    assert (other.raw / "depth" / "train" / "1_target.png").read_bytes() == picture("1target")
    assert not (other.raw / "mine").exists()


def test_two_people_at_once(project: Project, tmp_path: Path) -> None:
    project.data("add", write_pairs(tmp_path / "first", range(2)), "--task", "depth")
    project.commit("first")
    project.data("push")
    other = project.clone(tmp_path / "other")
    other.data("pull")
    theirs = write_pairs(tmp_path / "theirs", range(10, 12))
    project.data("add", theirs, "--task", "depth")
    project.commit("theirs")
    project.data("push")
    mine = write_pairs(tmp_path / "mine", range(20, 22))
    other.data("add", mine, "--task", "depth")
    other.commit("mine")
    other.call("git fetch --quiet")
    with pytest.raises(AssertionError, match=r"CONFLICT.*data/raw\.dvc"):
        other.call("git merge --quiet origin/main")
    assert "holds a merge conflict" in other.refused("status")
    other.call("git checkout --theirs data/raw.dvc")
    other.data("pull")
    other.data("add", mine, "--task", "depth")
    other.commit("both")
    assert {path.name.partition("_")[0] for path in (other.raw / "depth" / "train").iterdir()} == {"0", "1", "10", "11", "20", "21"}
    assert table(other.data("diff", "origin/main", "HEAD")) == [["depth", "train", "pairs", "2", "0", "0"]]


def test_git_merges_what_two_people_added_where_dvc_is_its_merge_driver(project: Project, tmp_path: Path) -> None:
    (project.folder / ".gitattributes").write_text("data/raw.dvc merge=dvc\n")
    project.call("git add .gitattributes")
    project.data("add", write_pairs(tmp_path / "first", range(1)), "--task", "depth")
    project.commit("first")
    project.call("git config merge.dvc.driver 'dvc git-hook merge-driver --ancestor %O --our %A --their %B'")
    project.call("git checkout --quiet -b theirs")
    project.data("add", write_pairs(tmp_path / "theirs", range(10, 11)), "--task", "depth")
    project.commit("theirs")
    project.call("git checkout --quiet main")
    project.data("pull")
    project.data("add", write_pairs(tmp_path / "mine", range(20, 21)), "--task", "mine")
    project.commit("mine")
    project.call("git merge --quiet --no-edit theirs")
    project.data("pull")
    assert table(project.data("diff", "HEAD~1")) == [["depth", "train", "pairs", "1", "0", "0"]]
    assert sorted(path.name for path in project.raw.iterdir()) == ["depth", "mine"]


def test_a_bad_file_is_named_where_the_person_has_it_and_nothing_changes(project: Project, tmp_path: Path) -> None:
    project.data("add", write_pairs(tmp_path / "good", range(1)), "--task", "depth")
    before, tracked = hash_tree(project.raw), (project.folder / "data" / "raw.dvc").read_text()
    bad = write_pairs(tmp_path / "bad", range(5, 7))
    (bad / "6_target.png").write_bytes(picture("6target")[:60])
    assert project.refused("add", bad, "--task", "depth").startswith(f"{bad / '6_target.png'}: cannot be read as an image")
    (bad / "6_target.png").unlink()
    assert "has no target" in project.refused("add", bad, "--task", "depth")
    (bad / "6_target.jpg").write_bytes(picture("6target"))
    (bad / "notes.txt").write_text("x")
    assert project.refused("add", bad, "--task", "depth").startswith(f"{bad / 'notes.txt'}: ")
    assert hash_tree(project.raw) == before
    assert (project.folder / "data" / "raw.dvc").read_text() == tracked
    assert not (project.folder / ".dvc" / "tmp" / "lavin-data").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere", "--task", "depth"), "nowhere: must be a folder"),
        (("params.yaml", "--task", "depth"), "params.yaml: must be a folder"),
        ((".dvc/tmp", "--task", "De/pth"), "--task De/pth: must be at most 40"),
        ((".dvc/tmp",), "--task: must name a task"),
        ((".dvc/tmp", "--task", "photos", "--split", "test"), "--split test: photographs have no split"),
        (("data/raw/depth", "--task", "depth"), "lies in data/raw already"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(fresh: Project, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in fresh.refused("add", *words)


def test_a_mistake_ends_with_exit_code_2_and_one_line(fresh: Project, tmp_path: Path) -> None:
    process = replace(fresh, folder=tmp_path).start("status")
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert error == "lavin: error: data/raw: lies in no DVC repository; run `git init` and `dvc init` in the project's folder first\n"


def test_a_tar_of_pairs_stays_one_file_and_counts_as_its_pairs(project: Project, tmp_path: Path) -> None:
    def write_tar(names: range, words: str) -> Path:
        with tarfile.open(tmp_path / "pairs.tar", "w") as archive:
            for name in names:
                for role in ("input", "target"):
                    content = picture(f"{words}{name}{role}")
                    header = tarfile.TarInfo(f"{name}_{role}.png")
                    header.size = len(content)
                    archive.addfile(header, io.BytesIO(content))
        return tmp_path / "pairs.tar"

    assert "checked 4 new pairs" in project.data("add", write_tar(range(4), ""), "--task", "mine")
    assert [path.name for path in (project.raw / "mine" / "train").iterdir()] == ["pairs.tar"]
    project.commit("tar")
    project.data("add", write_tar(range(3, 6), "better"), "--task", "mine", "--replace")
    page = tmp_path / "page.html"
    assert table(project.data("diff", "HEAD", "--html", page)) == [["mine", "train", "pairs", "2", "3", "1"]]
    assert page.read_text().count("data:image/png") == 2 * (2 + 3 + 2)


def wait_for_file(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Until the process has written its first file below a folder."""
    while not any(path.is_file() for path in folder.rglob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def kill(process: "subprocess.Popen[str]") -> None:
    """The command and all that it started, without warning."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_push_and_a_killed_pull_are_gone_on_with(project: Project, tmp_path: Path) -> None:
    project.data("add", write_pairs(tmp_path / "many", range(MANY)), "--task", "depth")
    project.commit("many")
    process = project.start("push")
    wait_for_file(process, project.s3.bucket / "dvc")
    kill(process)
    assert len(in_remote(project)) < 2 * MANY + 1
    assert not any(name.endswith(".dir") for name in in_remote(project))
    assert "pushed: no" in project.data("status")
    said, _ = project.start("push").communicate(timeout=60)
    assert re.search(r"^progress: push files \d+/\d+ ", said, re.MULTILINE)
    assert len(in_remote(project)) == 2 * MANY + 1

    other = project.clone(tmp_path / "other")
    process = other.start("pull")
    wait_for_file(process, other.folder / ".dvc" / "cache" / "files")
    kill(process)
    assert not other.raw.exists() or hash_tree(other.raw) != hash_tree(project.raw)
    other.data("pull")
    assert hash_tree(other.raw) == hash_tree(project.raw)
    assert "pushed: yes" in other.data("status")


def test_an_addition_that_was_killed_between_its_two_renames_is_undone_by_the_next(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.data("add", write_pairs(tmp_path / "first", range(2)), "--task", "depth")
    checkout = open_checkout(project.raw)
    (checkout.scratch / dataset_adding.OLD).mkdir(parents=True)
    (checkout.scratch / dataset_adding.NEW / "depth").mkdir(parents=True)
    (project.raw / "depth").rename(checkout.scratch / dataset_adding.OLD / "depth")
    project.data("add", write_pairs(tmp_path / "second", range(2, 3)), "--task", "mine")
    assert sorted(path.name for path in project.raw.iterdir()) == ["depth", "mine"]
    assert len(list((project.raw / "depth" / "train").iterdir())) == 4
    assert not checkout.scratch.exists()


def test_files_that_were_never_added_are_not_lost_by_a_pull(project: Project, tmp_path: Path) -> None:
    project.data("add", write_pairs(tmp_path / "first", range(1)), "--task", "depth")
    first = project.commit("first")
    project.data("add", write_pairs(tmp_path / "second", range(1)), "--task", "mine")
    project.commit("second")
    write_pairs(project.raw / "mine" / "train", range(7, 8))
    project.call(f"git checkout --quiet {first}")
    assert "were never added" in project.refused("pull")
    assert (project.raw / "mine" / "train" / "7_input.png").exists()
    project.data("pull", "--force")
    assert sorted(path.name for path in project.raw.iterdir()) == ["depth"]


def test_a_bucket_is_referred_to_without_a_copy_and_what_changed_there_is_refused(project: Project, tmp_path: Path) -> None:
    there = write_pairs(project.s3.bucket / "theirs" / "mine" / "train", range(2))
    said = project.data("import", f"s3://{BUCKET}/theirs")
    assert "refers to 4 files" in said
    assert not (project.folder / "data" / "imported" / "theirs").exists()
    assert in_remote(project) == []
    project.commit("refer")
    other = project.clone(tmp_path / "other")
    assert "lavin run --raw data/imported/theirs" in other.data("pull", "theirs")
    assert hash_tree(other.folder / "data" / "imported" / "theirs") == hash_tree(project.s3.bucket / "theirs")
    (there / "1_input.png").write_bytes(picture("changed"))
    assert "holds other files than when it was imported" in project.refused("pull", "theirs")
    assert not (project.folder / "data" / "imported" / "theirs").exists()
    for person in (project, other):
        # One had fetched the first state, the other had not.
        person.data("import", f"s3://{BUCKET}/theirs")
        person.data("pull", "theirs")
        assert hash_tree(person.folder / "data" / "imported" / "theirs") == hash_tree(project.s3.bucket / "theirs")
    assert "is s3://lavin/theirs already" in project.refused("import", f"s3://{BUCKET}/dvc", "--name", "theirs")
    assert "is no folder of a bucket" in project.refused("import", f"s3://{BUCKET}/nothing")
    assert "must be the address" in project.refused("import", "nothing")


def test_wrong_keys_no_remote_and_a_store_that_is_down_are_one_sentence_each(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not tracked yet" in project.refused("push")
    assert "is not here; `lavin data add` begins a first version" in project.refused("status")
    project.data("add", write_pairs(tmp_path / "first", range(1)), "--task", "depth")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    said = project.refused("push")
    assert "refuses the keys" in said
    assert SECRET not in said
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StepFailedError):
        project.data("push")
    assert "pushed: not known" in project.data("status")
    project.call("dvc remote remove store")
    assert "has no DVC remote" in project.refused("push")
    assert "names no DVC remote" in project.data("status")


def test_a_busy_repository_is_waited_for(project: Project, tmp_path: Path) -> None:
    project.data("add", write_pairs(tmp_path / "first", range(1)), "--task", "depth")
    script = "import sys; from dvc.repo import Repo\nwith Repo('.').lock: print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", script], cwd=project.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    process = project.start("push")
    assert process.stdout is not None
    assert "another process is at work here; trying again" in process.stdout.readline()
    holder.communicate()
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "3 files pushed" in said


def test_an_unknown_revision_is_one_sentence(fresh: Project) -> None:
    for revision in ("nightly", "--all", "0" * 40):
        assert "is neither a branch nor a tag nor a commit" in fresh.refused("diff", "--", revision)


def test_the_documents_name_commands_and_options_that_there_are() -> None:
    commands = typer.main.get_group(data).commands.items()
    known = {name: {option for parameter in command.params for option in parameter.opts} for name, command in commands}
    text = "".join((ROOT / name).read_text() for name in ("docs/data.md", "data/README.md"))
    found = re.findall(r"lavin data ([a-z]+)([^`#&\n]*)", text)
    assert {command for command, _ in found} == known.keys()
    assert all(option in known[command] for command, rest in found for option in re.findall(r"--[a-z-]+", rest))


def test_whole_files_of_shards_are_verified(tmp_path: Path) -> None:
    for split in SPLITS:
        with ShardWriter(tmp_path, split, shard_bytes=2**20) as writer:
            writer.add("scene", {"depth": ImagePair(np.zeros((16, 16, 3), np.uint8), np.ones((16, 16, 3), np.uint8))})
    write_manifest(tmp_path, resolution=16, clip_frames=1)
    done = CliRunner().invoke(data, ["verify", str(tmp_path)], catch_exceptions=False)
    assert done.stdout.endswith(f"{tmp_path}: all 4 files are as prepare wrote them\n")
    shard = tmp_path / "train" / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    with pytest.raises(InputError, match=re.escape(str(shard))):
        CliRunner().invoke(data, ["verify", str(tmp_path)], catch_exceptions=False)
