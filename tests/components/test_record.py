"""A real run's results, recorded from a workspace into DVC over a real S3 server, and found by another clone."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from components import dvc_stages
from components.data_version import file_md5
from components.folders import read_json
from components.record import STAGE_OF, Recorded, Target, record_run
from components.results import find
from lavin_dit.config import load_config
from lavin_dit.errors import InputError
from pipelines.record import record
from tests.s3_server import BUCKET, S3Server, serve

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny.yaml"
PROGRAMS = Path(sys.executable).parent
CODE = ("components", "model", "manifests/base/launcher", "dvc.yaml", ".dvcignore", ".gitignore", ".dvc/.gitignore")
CONFIG = """[core]
    analytics = false
    remote = store
['remote "store"']
    url = s3://{bucket}/dvc
    endpointurl = {endpoint}
"""
RUN = "run-1"
COMMAND = "import typer; from pipelines.record import record; typer.run(record)"
PIPELINE = """
import sys
from pathlib import Path
from components.folders import fingerprint, read_json, write_json
from components.op_bodies import run_gate, run_prepare, run_promote, run_resolve, run_step
from components.run_request import RunRequest
from components.steps import STEPS
from components.store import Store, open_input
from lavin_dit.config import section_from_json
from lavin_dit.export.integrity import write_checksums

params, workspace, repository, published = sys.argv[1:]
request = RunRequest(
    params=Path(params).read_text(), recipe="", overrides=[], model_size="recipe", stage="recipe", data_repository=repository,
    data_revision="data-v2", raw="data/raw", launcher="local", nodes=1, min_nodes=0, processes_per_node=1, accelerator="cpu",
)
place = lambda name: f"{published}/{name}"
Path(published).mkdir()
resolved = run_resolve(request, workspace=workspace, plan=place("plan"), summary=place("a.md"))
*sections, data, code, rival, job, evaluation_job, stage = resolved
section = dict(zip([step for step in STEPS if step != "resolve"], sections))
common = {"code": code, "workspace": workspace}
run_prepare(section=section["prepare"], data_hash=data, shards=place("shards"), **common)
made = {"shards": place("shards")}
for step, output in (("train_vae", "vae"), ("train_dit", "dit"), ("evaluate", "evaluation")):
    run_step(step, section=section[step], inputs=made, output=(output, place(output)), **common)
    made[output] = place(output)

# A bundle without graphs, where export would have put its own: ONNX takes longer than all the rest, and nothing here looks inside.
names = {name: fingerprint(open_input(Path(path))) for name, path in made.items()}
bundle = Store(Path(workspace) / "store", code).place("bundle", section_from_json("export", section["export"]), names)
bundle.mkdir()
metrics = read_json(Path(place("evaluation")) / "metrics.json")
tasks = {name: {"metrics": entry} for name, entry in metrics["tasks"].items()}
parity = {"relative_error": 1e-6, "max_relative_error": 1e-3}
lineage = {"image": "lavin@sha256:1", "git_commit": None}
write_json(bundle / "bundle.json", {"format": 1, "tasks": tasks, "parity": parity, "lineage": lineage})
(bundle / "weights.bin").write_bytes(b"weights" * 1000)
write_checksums(bundle)
run_step("export", section=section["export"], inputs=made, output=("bundle", place("bundle")), **common)

inputs = {"evaluation": made["evaluation"], "bundle": place("bundle")}
outputs = {"verdict": place("verdict"), "summary": place("b.md")}
run_gate(section=section["gate"], rival=rival, stage=stage, inputs=inputs, outputs=outputs, **common)
inputs = {"bundle": place("bundle"), "verdict": place("verdict")}
run_promote(section=section["promote"], inputs=inputs, workspace=workspace, promotion=place("promotion"), summary=place("c.md"))
"""

app = typer.Typer()
app.command()(record)


@dataclass(frozen=True)
class Laboratory:
    """A bare repository that people and clusters share, and the workspace of a cluster in which a run has ended."""

    home: Path
    s3: S3Server

    @property
    def origin(self) -> Path:
        return self.home / "origin.git"

    @property
    def workspace(self) -> Path:
        return self.home / "workspace"

    @property
    def environment(self) -> dict[str, str]:
        ours = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "LAVIN_RUN_ID": RUN}
        # The code of the folder that a command runs in, not that of this checkout.
        return {**os.environ, **self.s3.environment, **ours, "PYTHONPATH": f".{os.pathsep}model"}

    def call(self, folder: Path, command: str) -> str:
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=self.environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return (done.stdout + done.stderr).strip()

    def clone(self, name: str) -> Path:
        """What a person has on a laptop."""
        self.call(self.home, f"git clone --quiet {self.origin} {name}")
        for key, value in (("name", "tester"), ("email", "tester@localhost")):
            self.call(self.home / name, f"git config user.{key} {value}")
        return self.home / name

    def target(self, branch: str = f"runs/{RUN}", **more: str) -> Target:
        return Target(str(self.origin), branch, **more)

    def branches(self) -> dict[str, str]:
        lines = self.call(self.origin, "git for-each-ref --format '%(refname:short) %(objectname)' refs/heads").splitlines()
        return dict(line.split() for line in lines)


def write_pairs(folder: Path, *numbers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        for role in ("input", "target"):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}_{role}.png")


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    home = tmp_path_factory.mktemp("laboratory")
    (home / "s3").mkdir()
    with serve(home / "s3") as s3:
        made = Laboratory(home, s3)
        made.call(home, "git init --quiet --bare --initial-branch main origin.git")
        made.workspace.mkdir()
        author = made.clone("author")
        for name in CODE:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, author / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (author / name).parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, author / name)
        (author / "params.yaml").write_text("# Before the run.\n" + TINY.read_text().replace("seed: 0", "seed: 5"))
        made.call(author, "git checkout --quiet -b main")
        (author / ".dvc" / "config").write_text(CONFIG.format(bucket=BUCKET, endpoint=s3.url))
        for branch, numbers in (("data-v1", (1, 2)), ("data-v2", (1, 2, 3))):
            write_pairs(author / "data" / "raw" / "depth" / "train", *numbers)
            made.call(author, "dvc add --quiet data/raw")
            made.call(author, "dvc push --quiet")
            made.call(author, "git add --all")
            made.call(author, f"git commit --quiet --message {branch}")
            made.call(author, f"git push --quiet origin HEAD:refs/heads/{branch}")
        # The code's branch tracks other data than those that the run took.
        made.call(author, "git push --quiet origin HEAD~1:refs/heads/main")
        arguments = f"{TINY} {made.workspace} {made.origin} {home / 'published'}"
        script = home / "pipeline.py"
        script.write_text(PIPELINE)
        made.call(author, f"{sys.executable} {script} {arguments}")
        yield made


@pytest.fixture(autouse=True)
def keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "laboratory" in request.fixturenames:
        for name, value in request.getfixturevalue("laboratory").s3.environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def recorded(laboratory: Laboratory) -> Recorded:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in laboratory.s3.environment.items():
            patch.setenv(name, value)
        return record_run(laboratory.workspace, RUN, laboratory.target())


@pytest.fixture(scope="module")
def laptop(laboratory: Laboratory, recorded: Recorded) -> Path:
    """Another clone, on the run's branch, with all of its data."""
    folder = laboratory.clone("laptop")
    laboratory.call(folder, f"git checkout --quiet runs/{RUN}")
    laboratory.call(folder, "dvc pull --quiet")
    return folder


def test_repro_on_a_laptop_finds_nothing_to_do(laboratory: Laboratory, laptop: Path) -> None:
    said = laboratory.call(laptop, "dvc repro")
    assert said.count("didn't change, skipping") == len(STAGE_OF) - 1
    assert [line for line in said.splitlines() if line.startswith("Running")] == ["Running stage 'resolve':"]
    assert laboratory.call(laptop, "git status --porcelain") == ""


def test_the_laptop_has_what_the_cluster_made(laboratory: Laboratory, laptop: Path) -> None:
    made = find(laboratory.workspace, RUN)
    for output in STAGE_OF:
        assert digests(laptop / "outputs" / output) == digests(getattr(made, output), "rival.json")


def digests(folder: Path, without: str = "") -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != without)
    return {path.relative_to(folder).as_posix(): file_md5(path) for path in files}


def test_the_branch_tracks_the_data_of_the_run_and_not_those_of_its_codes_commit(laboratory: Laboratory, laptop: Path) -> None:
    assert (laptop / "data" / "raw" / "depth" / "train" / "3_input.png").is_file()
    assert laboratory.call(laptop, "git diff --stat --name-only HEAD~1").split() == ["data/raw.dvc", "dvc.lock", "params.yaml"]
    assert load_config(laptop / "params.yaml", []) == load_config(TINY, [])


def test_the_commit_says_what_ran(laboratory: Laboratory, recorded: Recorded, laptop: Path) -> None:
    said = laboratory.call(laptop, "git log -1 --format=%B").splitlines()
    base = laboratory.branches()["main"]
    plan = read_json(laptop / "outputs" / "plan" / "plan.json")
    assert said[:6] == [f"Record run {RUN}", "", "Image: lavin@sha256:1", f"Code: {base}", f"Data: {plan['data']['hash']}", ""]
    headline = read_json(laptop / "outputs" / "evaluation" / "headline.json")
    assert said[6:] == [f"{name}: {value}" for name, value in headline.items()]
    assert laboratory.branches()[f"runs/{RUN}"] == recorded.commit == laboratory.call(laptop, "git rev-parse HEAD")


def test_a_second_recording_changes_nothing(laboratory: Laboratory, recorded: Recorded) -> None:
    before = laboratory.branches()
    # The code moves on, and what was recorded stays what it is.
    author = laboratory.home / "author"
    laboratory.call(author, "git push --quiet origin HEAD:refs/heads/main --force")
    try:
        words = [RUN, "--workspace", str(laboratory.workspace), "--repository", str(laboratory.origin)]
        said = CliRunner().invoke(app, words, catch_exceptions=False).output
        assert said == f"runs/{RUN}: holds run {RUN} already, as commit {recorded.commit}; nothing was changed\n"
        assert laboratory.branches() == before | {"main": before["data-v2"]}
    finally:
        laboratory.call(author, f"git push --quiet --force origin {before['main']}:refs/heads/main")


def test_an_interrupted_recording_is_done_again(laboratory: Laboratory, recorded: Recorded) -> None:
    """By the command, which is killed with all that it started."""
    branch, scratch = "runs/again", laboratory.workspace / "runs" / RUN / ".record"
    words = [
        RUN,
        "--workspace",
        str(laboratory.workspace),
        "--repository",
        str(laboratory.origin),
        "--branch",
        branch,
        "--base",
        "same-params",
    ]
    author = laboratory.home / "author"
    laboratory.call(author, "git checkout --quiet -b same-params")
    (author / "params.yaml").write_text("# The same values, written otherwise.\n" + TINY.read_text())
    laboratory.call(author, "git commit --quiet --all --message same-params")
    laboratory.call(author, "git push --quiet origin same-params")
    # In a session of its own: it is killed with all that it started.
    first = subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=laboratory.environment, cwd=ROOT, start_new_session=True)
    lock = scratch / "repository" / "dvc.lock"
    while not (lock.is_file() and "outputs/promotion" in lock.read_text()):
        assert first.poll() is None
        time.sleep(0.002)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert branch not in laboratory.branches()
    # The volume's own file, the clone's and that in DVC's cache are one.
    shards = find(laboratory.workspace, RUN).shards
    assert shards
    assert [path.stat().st_nlink for path in shards.rglob("*.tar")] == [3] * len(list(shards.rglob("*.tar")))
    said = laboratory.call(ROOT, shlex.join([sys.executable, "-c", COMMAND, *words]))
    commit = laboratory.branches()[branch]
    assert f"{branch}: holds run {RUN} now, as commit {commit}" in said
    assert not scratch.exists()
    assert laboratory.call(laboratory.origin, f"git diff --name-only same-params {branch}").split() == ["dvc.lock"]


def test_a_run_that_promoted_nothing_leaves_promote_out_of_the_lock(laboratory: Laboratory, recorded: Recorded, tmp_path: Path) -> None:
    promotion = laboratory.workspace / "runs" / RUN / "promotion"
    promotion.rename(tmp_path / "promotion")
    try:
        # From a commit whose lock has an earlier run's.
        record_run(laboratory.workspace, RUN, laboratory.target("runs/unpromoted", base=f"runs/{RUN}"))
    finally:
        (tmp_path / "promotion").rename(promotion)
    stages = {name: lock_of(laboratory, f"runs/{name}")["stages"] for name in (RUN, "unpromoted")}
    promote = stages[RUN].pop("promote")
    assert promote["outs"][0]["path"] == "outputs/promotion"
    assert stages[RUN] == stages["unpromoted"]


def lock_of(laboratory: Laboratory, branch: str) -> Any:
    return yaml.safe_load(laboratory.call(laboratory.origin, f"git show {branch}:dvc.lock"))


def refusal(laboratory: Laboratory, run: str = RUN, branch: str = "runs/refused", **more: str) -> str:
    with pytest.raises(InputError) as caught:
        record_run(laboratory.workspace, run, laboratory.target(branch, **more))
    assert "runs/refused" not in laboratory.branches()
    assert not (laboratory.workspace / "runs" / RUN / ".record").exists()
    return str(caught.value)


def test_a_run_that_is_unknown_or_not_finished_is_refused(laboratory: Laboratory, tmp_path: Path) -> None:
    assert "run run-2: is not in" in refusal(laboratory, "run-2")
    assert "run ..: is not in" in refusal(laboratory, "..")
    assert "branch *: must be a plain name" in refusal(laboratory, branch="*")
    verdict = find(laboratory.workspace, RUN).verdict
    assert verdict
    verdict.rename(tmp_path / "verdict")
    assert "has no output of gate" in refusal(laboratory)
    (tmp_path / "verdict").rename(verdict)


def test_other_code_is_refused(laboratory: Laboratory) -> None:
    author = laboratory.home / "author"
    laboratory.call(author, "git checkout --quiet --detach origin/main")
    (author / "components" / "gate.py").write_text("# Other code.\n")
    laboratory.call(author, "git commit --quiet --all --message other")
    laboratory.call(author, "git push --quiet origin HEAD:refs/heads/other-code")
    assert "the code of other-code is not the one that made this run; name a commit that has it with --base" in refusal(
        laboratory, base="other-code"
    )
    assert "is neither a branch nor a tag nor a commit" in refusal(laboratory, base="nowhere")
    laboratory.call(author, "git checkout --quiet --force main")


def test_a_branch_with_something_else_is_never_touched(laboratory: Laboratory) -> None:
    for branch in ("data-v2", "main"):
        before = laboratory.branches()
        assert f"branch {branch}: is in {laboratory.origin} already, with something else" in refusal(laboratory, branch=branch)
        assert laboratory.branches() == before


def test_nothing_is_pushed_where_the_data_cannot_be(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no remote elsewhere" in refusal(laboratory, remote="elsewhere")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "refuses the keys" in refusal(laboratory)
    # A run on rendered scenes alone asks nothing of the store until it pushes.
    monkeypatch.setattr(dvc_stages, "list_names", lambda _: [])
    assert "refuses the keys" in refusal(laboratory)
