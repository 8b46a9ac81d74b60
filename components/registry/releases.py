"""Writing to the registry: a bundle becomes a version, a version gets a stage, a stage is rolled back."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.folders import write_json, write_text
from components.registry.history import FORCED, ROLLED_BACK, History, Version, read_history, read_tags
from components.registry.repository import commit, only_writer, read_committed, run_dvc, run_git
from lavin_dit.errors import InputError
from lavin_dit.export.integrity import CHECKSUMS_NAME, checksums_digest, verify_checksums

logger = logging.getLogger(__name__)

FIRST_VERSION = "v0.1.0"
ARTIFACTS_FILE = "dvc.yaml"
METRICS_FILE = "metrics.json"
DESCRIPTION = "LaVin-DiT bundle: ONNX graphs, facts for their runtime, default context pairs, model card"
LABELS = ["in-context-learning", "onnx", "vision"]
COPIED = ("bundle.json", "model_card.md", CHECKSUMS_NAME)


@dataclass(frozen=True)
class Release:
    """A bundle that may be registered."""

    name: str
    bundle: Path
    metrics: Any
    """What it was judged by; None where it was forced past the gate without a verdict."""
    forced: str | None = None
    """Why it is let past the gate, if it is."""


def read_release_file(folder: Path, version: Version, file_name: str) -> str | None:
    """A copy that a version's commit holds, such as `metrics.json`; None where it has none."""
    return read_committed(folder, version.commit, f"releases/{version.name}/{file_name}")


def is_bundle_of(folder: Path, version: Version, bundle: Path) -> bool:
    """Whether a version is this very bundle, to the byte."""
    return read_release_file(folder, version, CHECKSUMS_NAME) == (bundle / CHECKSUMS_NAME).read_text(encoding="utf-8")


def register(folder: Path, release: Release) -> tuple[Version, bool]:
    """Registers a bundle as the next version, and says whether it did: one that is registered already stays what it is.

    Killed at any moment, a second call ends right: what has no version tag yet does not count, and is written again.
    Raises: InputError where the bundle's hashes do not match, or the name cannot be a tag.
    """
    check_name(release.name)
    with only_writer(folder):
        verify_checksums(release.bundle)
        history = read_history(folder, release.name)
        version = _find_bundle(folder, history, release.bundle)
        if version:
            return version, False
        number = _next_version(folder, release.name)
        _publish(folder, release, number)
    logger.info("registry %s: registered %s@%s", folder, release.name, number)
    return read_history(folder, release.name).find(number), True


def check_name(name: str) -> None:
    """Raises: InputError where GTO would not know its own tag by that name again."""
    from gto.constants import name_re

    if not name_re.search(name):
        raise InputError(f"name {name!r}: must begin and end with a letter or a digit, with only letters, digits, - and _ between")


def assign(folder: Path, version: Version, stage: str, *, forced: str | None = None) -> bool:
    """Puts a registered version in a stage, and says whether it did: False where it is there already."""
    check_name(stage)
    with only_writer(folder):
        if read_history(folder, version.name).in_stage(stage) == version:
            return False
        _assign(folder, version, stage, [f"Assign {version} to {stage}", "", *_forced_line(forced)])
    logger.info("registry %s: assigned %s to %s", folder, version, stage)
    return True


def roll_back(folder: Path, name: str, stage: str, to: str | None = None) -> tuple[Version, Version]:
    """Puts the version back that was in the stage before the present one, or `to`, an earlier one; returns (from, to).

    A rollback undoes a promotion: a second one goes one further back, and a promotion after it continues from there.
    Raises: InputError where there is nothing to go back to, or `to` was not in the stage on the way to the present version.
    """
    with only_writer(folder):
        history = read_history(folder, name)
        present, target = _rollback_of(history, stage, to)
        subject = f"Roll {name} in {stage} back from {present.version} to {target.version}"
        _assign(folder, target, stage, [subject, "", ROLLED_BACK + present.version])
    logger.info("registry %s: rolled %s in %s back from %s to %s", folder, name, stage, present.version, target.version)
    return present, target


def _rollback_of(history: History, stage: str, to: str | None) -> tuple[Version, Version]:
    trail = history.trail(stage)
    if not trail:
        raise InputError(f"stage {stage}: no version of {history.name} is in it, so there is nothing to roll back")
    *earlier, present = trail
    if not earlier:
        raise InputError(f"stage {stage}: {history.name}@{present} is the first version in it, so there is nothing to go back to")
    if to is not None and (to not in earlier or to == present):
        allowed = ", ".join(sorted(set(earlier) - {present}))
        raise InputError(f"--to {to}: was not in {stage} before {present}; allowed: {allowed} (lavin promote puts any version in a stage)")
    return history.find(present), history.find(to or earlier[-1])


def _find_bundle(folder: Path, history: History, bundle: Path) -> Version | None:
    for version in reversed(history.versions):
        if is_bundle_of(folder, version, bundle):
            return version
    return None


def _next_version(folder: Path, name: str) -> str:
    """A minor bump of the highest that ever was: a withdrawn version's number is not given out again."""
    from gto.versions import SemVer

    taken = [SemVer.parse(tag.version) for tag in read_tags(folder, name) if tag.version]
    return f"v{max(taken).bump_minor()}" if taken else FIRST_VERSION


def _publish(folder: Path, release: Release, number: str) -> None:
    """Stores the bundle, commits what describes it, and last of all tags that commit: only the tag makes it a version."""
    digest = checksums_digest(release.bundle)
    paths = _write_release(folder, release)
    # DVC read the bundle after it was verified: what it stored must be what was verified.
    verify_checksums(release.bundle)
    if digest != checksums_digest(release.bundle):
        raise InputError(f"{release.bundle}: changed while it was being registered")
    lines = [f"Bundle: {digest}", *_forced_line(release.forced)]
    made = commit(folder, paths, "\n".join([f"Release {release.name} {number}", "", *lines]))
    _tag(folder, release.name, f"{release.name}@{number}", made, [f"Register {release.name} {number}", "", *lines])


def _write_release(folder: Path, release: Release) -> list[str]:
    model, copies = f"models/{release.name}", f"releases/{release.name}"
    _declare(folder / ARTIFACTS_FILE, release.name, model)
    _copy_small_files(release, folder / copies)
    (folder / "models").mkdir(exist_ok=True)
    (folder / f"{model}.dvc").unlink(missing_ok=True)
    run_dvc(folder, "add", "--quiet", "--to-remote", "--out", model, str(release.bundle.resolve()))
    return [ARTIFACTS_FILE, f"{model}.dvc", copies]


def _copy_small_files(release: Release, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name in COPIED:
        if (release.bundle / name).is_file():
            shutil.copyfile(release.bundle / name, folder / name)
    if release.metrics is not None:
        write_json(folder / METRICS_FILE, release.metrics, nan_as_null=True)


def _declare(path: Path, name: str, model: str) -> None:
    """Adds the artifact to dvc.yaml; one that is there keeps the description and the labels that people gave it."""
    document = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    artifacts = document.setdefault("artifacts", {})
    if name not in artifacts:
        artifacts[name] = {"path": model, "type": "model", "desc": DESCRIPTION, "labels": LABELS}
        write_text(path, yaml.safe_dump(document, sort_keys=False))


def _assign(folder: Path, version: Version, stage: str, message: list[str]) -> None:
    number = 1 + max((tag.number for tag in read_tags(folder, version.name)), default=0)
    _tag(folder, version.name, f"{version.name}#{stage}#{number}", version.commit, message)


def _tag(folder: Path, name: str, tag: str, commit: str, message: list[str]) -> None:
    """Makes an annotated tag later than the name's others: GTO and DVC order them by whole seconds, and clocks jump."""
    date = max([int(time.time()), *(other.time + 1 for other in read_tags(folder, name))])
    text = "\n".join(message).strip()
    run_git(folder, "tag", "--annotate", "--cleanup=verbatim", f"--message={text}\n", tag, commit, date=date)


def _forced_line(reason: str | None) -> list[str]:
    return [FORCED + " ".join(reason.split())] if reason else []
