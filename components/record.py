"""A finished run's results in DVC: a branch whose dvc.lock names them, so that `dvc repro` finds nothing to do for them.

DVC records, it does not run anything. Data are pushed before the branch that names them: a branch never points at what is missing, and a
recording that was interrupted is done again from its start, where all that was pushed is found.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from components.code_version import source_hash_of
from components.dvc_files import CONFIG, Remote, read_remote
from components.dvc_stages import LOCAL_CONFIG, configure, place_outputs, push_outputs, track_data, write_lock, write_params
from components.folders import exclusive, read_json
from components.gate import read_facts
from components.git_remote import FULL_COMMIT, REVISION, GitRemote
from components.registry.repository import run_git
from components.results import STEP_OF, Results, find
from lavin_dit.errors import InputError

STAGE_OF = {"plan": "resolve", "shards": "prepare", **STEP_OF, "promotion": "promote"}
OPTIONAL = ("promotion",)
"""Outputs that a finished run need not have."""
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
DEFAULT_BASE = "HEAD"


@dataclass(frozen=True)
class Target:
    """Where a run is to be recorded."""

    repository: str
    branch: str
    base: str = ""
    """A branch, tag or commit with the code of the run; where empty, the default branch, or else the commit that the bundle names."""
    remote: str = ""
    """One of the repository's DVC remotes; its default one where empty."""


@dataclass(frozen=True)
class Recorded:
    """Where a run has been recorded."""

    commit: str
    is_new: bool


def record_run(workspace: Path, run_id: str, target: Target) -> Recorded:
    """Writes a finished run's outputs into DVC and pushes them, then a branch that names them; changes nothing where that was done.

    Raises: InputError where there is no such run, a step of it is missing, the repository has other code or no DVC remote, or the branch
    holds something else; StepFailedError where git or DVC failed.
    """
    if not REVISION.fullmatch(target.branch) or ".." in target.branch:
        raise InputError(f"branch {target.branch}: must be a plain name, such as runs/{run_id}")
    origin = GitRemote(target.repository)
    results, run = _finished(workspace, run_id), workspace / "runs" / run_id
    with exclusive(run / "record"), _scratch(run) as clone:
        known = _known_commit(origin, target.branch, clone)
        base = _check_out(origin, target, clone, results, known)
        remote = _remote(origin, target.remote, clone)
        _enter(results, remote, clone, target.repository)
        commit = _commit(clone, _message(run_id, results, base))
        if known and _tree(clone, known) == _tree(clone, commit):
            return Recorded(known, is_new=False)
        if known:
            raise _taken(origin, target.branch)
        push_outputs(_stages(results), remote, clone)
        origin.push(clone, commit, target.branch)
    return Recorded(commit, is_new=True)


def _finished(workspace: Path, run_id: str) -> Results:
    if not RUN_ID.fullmatch(run_id) or not (workspace / "runs" / run_id).is_dir():
        raise InputError(f"run {run_id}: is not in {workspace / 'runs'}; must be the id of a run that used this workspace")
    results = find(workspace, run_id)
    for output, stage in STAGE_OF.items():
        if not getattr(results, output) and output not in OPTIONAL:
            raise InputError(f"run {run_id}: has no output of {stage} in {workspace}; only a run with all of its results can be recorded")
    return results


@contextmanager
def _scratch(run: Path) -> Iterator[Path]:
    """A folder for a clone, on the file system of the outputs so that they need no second copy; what a killed recording left goes first."""
    folder = run / ".record"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        yield folder / "repository"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _known_commit(origin: GitRemote, branch: str, clone: Path) -> str | None:
    """What the branch points at, with its parent; None where there is no such branch."""
    return origin.fetch(f"refs/heads/{branch}", clone, depth=2) if origin.has_branch(branch, clone) else None


def _taken(origin: GitRemote, branch: str) -> InputError:
    return InputError(f"branch {branch}: is in {origin.address} already, with something else; name another with --branch")


def _check_out(origin: GitRemote, target: Target, clone: Path, results: Results, known: str | None) -> str:
    """Checks a commit out that has the run's code; returns its id. A branch that is there already was made from its parent."""
    wanted = _plan(results)["source_sha256"]
    for base in _parents(clone, known) if known else _bases(target, results):
        try:
            commit = base if known else origin.fetch(base, clone)
        except InputError:
            if base == (target.base or DEFAULT_BASE):
                raise
            # The commit that the bundle names was never pushed.
            continue
        run_git(clone, "checkout", "--quiet", "--force", "--detach", commit)
        if source_hash_of(clone) == wanted:
            return commit
    if known:
        raise _taken(origin, target.branch)
    told = target.base or "the default branch"
    raise InputError(f"{origin.address}: the code of {told} is not the one that made this run; name a commit that has it with --base")


def _parents(clone: Path, commit: str) -> list[str]:
    return run_git(clone, "rev-list", "--parents", "--max-count=1", commit).split()[1:]


def _bases(target: Target, results: Results) -> list[str]:
    if target.base:
        return [target.base]
    named = str(_lineage(results).get("git_commit"))
    return [DEFAULT_BASE, *([named] if FULL_COMMIT.fullmatch(named) else [])]


def _remote(origin: GitRemote, name: str, clone: Path) -> Remote:
    config = clone / CONFIG
    home = origin.local_folder
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    return read_remote(text, name or None, folder=home / ".dvc" if home else None)


def _enter(results: Results, remote: Remote, clone: Path, repository: str) -> None:
    stages = _stages(results)
    configure(clone, remote)
    place_outputs(_outputs(results), clone)
    write_params(_plan(results)["config"], clone)
    track_data(_data_hash(results), remote, clone, repository=repository)
    write_lock(stages, [stage for stage in STAGE_OF.values() if stage not in stages], clone)


def _commit(clone: Path, message: str) -> str:
    run_git(clone, "add", "--all")
    # In a repository that does not ignore it.
    run_git(clone, "rm", "--quiet", "--cached", "--ignore-unmatch", "--", LOCAL_CONFIG)
    run_git(clone, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return run_git(clone, "rev-parse", "HEAD")


def _message(run_id: str, results: Results, base: str) -> str:
    assert results.evaluation
    headline = read_json(results.evaluation / "headline.json")
    lines = [
        f"Record run {run_id}",
        "",
        f"Image: {_lineage(results).get('image') or 'none'}",
        f"Code: {base}",
        f"Data: {_data_hash(results)}",
        "",
        *(f"{name}: {value}" for name, value in headline.items()),
    ]
    return "\n".join(lines)


def _tree(clone: Path, commit: str) -> str:
    return run_git(clone, "rev-parse", f"{commit}^{{tree}}")


def _outputs(results: Results) -> dict[str, Path]:
    """The folders that there are, in the order of the steps."""
    folders = {field.name: getattr(results, field.name) for field in fields(results)}
    return {name: folders[name] for name in STAGE_OF if folders[name]}


def _stages(results: Results) -> list[str]:
    return [STAGE_OF[output] for output in _outputs(results)]


def _plan(results: Results) -> Any:
    assert results.plan
    return read_json(results.plan / "plan.json")


def _data_hash(results: Results) -> str:
    return str(_plan(results)["data"]["hash"])


def _lineage(results: Results) -> dict[str, Any]:
    """What the bundle says of its origin."""
    assert results.bundle
    lineage: dict[str, Any] = read_facts(results.bundle).get("lineage", {})
    return lineage
