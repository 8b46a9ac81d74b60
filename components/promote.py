"""promote: a bundle that passed its gate becomes a version in the registry and gets a stage."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from components.folders import atomic_folder, read_json, write_json
from components.gate import VERDICT_FILE, read_facts
from components.registry.history import Version, read_history
from components.registry.releases import METRICS_FILE, Release, assign, check_name, is_bundle_of, register
from components.registry.repository import only_writer
from lavin_dit.config import PromoteConfig
from lavin_dit.errors import InputError
from lavin_dit.export.integrity import checksums_digest, verify_checksums

logger = logging.getLogger(__name__)

INPUTS = ("bundle", "verdict", "registry")
OUTPUTS = ("promotion",)


@dataclass(frozen=True)
class Target:
    """Where a bundle is to go."""

    registry: Path
    name: str
    stage: str


@dataclass(frozen=True)
class Promotion:
    """Where a bundle went."""

    version: Version
    bundle_sha256: str
    is_new_version: bool
    is_new_in_stage: bool


def run(config: PromoteConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Registers and assigns, then writes promotion.json. Run again, it finds its work done and changes nothing.

    Raises: InputError where the verdict is not a pass for this very bundle, or the bundle's hashes do not match.
    """
    target = Target(inputs["registry"], config.name, config.stage)
    promotion = promote_bundle(inputs["bundle"], target, verdict=inputs["verdict"] / VERDICT_FILE)
    with atomic_folder(outputs["promotion"], key=uuid4().hex) as folder:
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / "promotion.json", _record(promotion, target))


def promote_bundle(bundle: Path, target: Target, *, verdict: Path, forced: str | None = None) -> Promotion:
    """Registers a bundle where it is new and puts it in the stage.

    `forced` lets it past a verdict that is missing or refuses it, and is kept in the registry; nothing lets it past its hashes.
    Raises: InputError where the verdict is not a pass for this very bundle against what is in the stage now, or its hashes do not match.
    """
    check_name(target.stage)
    verify_checksums(bundle)
    digest = checksums_digest(bundle)
    metrics = _forced_metrics(verdict, digest, bundle) if forced else _judged_metrics(verdict, digest)
    with only_writer(target.registry):
        if not forced:
            _check_rival(verdict, bundle, target.registry)
        version, is_new_version = register(target.registry, Release(target.name, bundle, metrics, forced))
        is_new_in_stage = assign(target.registry, version, target.stage, forced=forced)
    if not is_new_in_stage:
        logger.info("registry %s: %s is in %s already, nothing changed", target.registry, version, target.stage)
    return Promotion(version, digest, is_new_version, is_new_in_stage)


def _judged_metrics(path: Path, digest: str) -> Any:
    verdict = read_json(path)
    if not isinstance(verdict, dict) or verdict.get("passed") is not True:
        raise InputError(f"{path}: the gate refused this bundle ({_failed_checks(verdict)})")
    if verdict.get("bundle_sha256") != digest:
        raise InputError(f"{path}: is the verdict on another bundle (sha256 {verdict.get('bundle_sha256')}, this one has {digest})")
    return read_json(path.with_name(METRICS_FILE))


def _check_rival(path: Path, bundle: Path, registry: Path) -> None:
    """A pass against a model that has since been replaced says nothing about the one that replaced it."""
    verdict = read_json(path)
    name, _, stage = str(verdict.get("against")).partition("#")
    present = read_history(registry, name).in_stage(stage)
    is_unchanged = (present.version if present else None) == verdict.get("compared_with")
    if not is_unchanged and not (present and is_bundle_of(registry, present, bundle)):
        judged, now = verdict.get("compared_with") or "an empty stage", present.version if present else "nothing"
        raise InputError(f"{path}: compared this bundle with {judged}, but {now} is in {stage} now; run the gate again")


def _failed_checks(verdict: Any) -> str:
    checks = verdict.get("checks") if isinstance(verdict, dict) else None
    failed = [str(check.get("name")) for check in checks or () if isinstance(check, dict) and not check.get("passed")]
    return f"failed: {', '.join(failed)}" if failed else "it does not say passed: true"


def _forced_metrics(path: Path, digest: str, bundle: Path) -> Any:
    """The metrics of this very bundle: as a gate judged them, or else those that it carries; None where it has none."""
    verdict = read_json(path) if path.is_file() else None
    if isinstance(verdict, dict) and verdict.get("bundle_sha256") == digest:
        return read_json(path.with_name(METRICS_FILE))
    tasks = {name: task["metrics"] for name, task in read_facts(bundle).get("tasks", {}).items() if task.get("metrics")}
    num_beating = sum(entry["beats_baselines"] for entry in tasks.values())
    return {"tasks": tasks, "tasks_beating_baselines": num_beating, "num_tasks": len(tasks)} if tasks else None


def _record(promotion: Promotion, target: Target) -> dict[str, object]:
    return {
        "name": target.name,
        "version": promotion.version.version,
        "stage": target.stage,
        "commit": promotion.version.commit,
        "registry": str(target.registry.resolve()),
        "bundle_sha256": promotion.bundle_sha256,
        "changed": promotion.is_new_version or promotion.is_new_in_stage,
    }
