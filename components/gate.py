"""gate: may this bundle be promoted? Absolute bounds, and no regression against the model that is in the stage now.

The step succeeds either way and says `passed` in verdict.json. The answer depends on the registry's state, so a cache must not give it.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from components.folders import atomic_folder, read_json, write_json, write_text
from components.registry.history import Version, read_history
from components.registry.releases import METRICS_FILE, read_release_file
from lavin_dit.config import GateConfig
from lavin_dit.errors import InputError
from lavin_dit.export.format import FACTS_FILE
from lavin_dit.export.integrity import checksums_digest, verify_checksums

logger = logging.getLogger(__name__)

INPUTS = ("evaluation", "bundle", "registry")
OUTPUTS = ("verdict",)
VERDICT_FILE = "verdict.json"


@dataclass(frozen=True)
class Check:
    """One thing that a model must show."""

    name: str
    value: float | None
    required: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Rival:
    """The model that is in the stage now."""

    version: str
    metrics: Any
    """None where it was forced into the registry without any."""


def run(config: GateConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Writes verdict.json, summary.md, and the metrics that were judged."""
    metrics = read_json(inputs["evaluation"] / METRICS_FILE)
    rival = _rival(inputs["registry"], config.against)
    checks = [*_bundle_checks(inputs["bundle"], metrics), *judge(config, metrics, rival)]
    verdict = {
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
        "against": config.against,
        "compared_with": rival.version if rival else None,
        "bundle_sha256": _digest(inputs["bundle"]),
    }
    # A key of its own: nothing of a killed gate is worth continuing.
    with atomic_folder(outputs["verdict"], key=uuid4().hex) as folder:
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / METRICS_FILE, metrics, nan_as_null=True)
        write_text(folder / "summary.md", _summary(checks, rival))
        write_json(folder / VERDICT_FILE, verdict)
    _log(checks, rival)


def judge(config: GateConfig, metrics: Any, rival: Rival | None) -> list[Check]:
    """The checks on an evaluation's metrics; one that is missing or not a finite number fails."""
    beating = _number(metrics, "tasks_beating_baselines")
    checks = [_within("tasks_beating_baselines", beating, minimum=config.min_tasks_beating_baselines)]
    for name, bound in config.bounds.items():
        task, _, metric = name.partition("/")
        checks.append(_within(name, _number(metrics, "tasks", task, "model", metric), minimum=bound.min, maximum=bound.max))
    return [*checks, *_regressions(config.max_regression, metrics, rival)]


def _regressions(max_regression: float, metrics: Any, rival: Rival | None) -> Iterator[Check]:
    tasks = _look_up(rival.metrics, "tasks") if rival else None
    for task, theirs in sorted(tasks.items() if isinstance(tasks, dict) else ()):
        assert rival
        metric = _look_up(theirs, "metric")
        before, now = _number(theirs, "model", metric), _number(metrics, "tasks", task, "model", metric)
        name = f"{task}/{metric} against {rival.version}"
        if before is None:
            yield _compare(name, now, "a finite number", True, f"{rival.version} has no value to compare with")
            continue
        slack = max_regression * abs(before)
        if _look_up(theirs, "better") == "lower":
            yield _within(name, now, maximum=before + slack)
        else:
            yield _within(name, now, minimum=before - slack)


def _bundle_checks(bundle: Path, metrics: Any) -> Iterator[Check]:
    yield _attempt("bundle/hashes", "as in SHA256SUMS", lambda: verify_checksums(bundle))
    facts: dict[str, Any] = {}
    yield _attempt("bundle/facts", "readable", lambda: facts.update(read_facts(bundle)))
    yield _same_metrics(facts, metrics)
    yield _parity(facts)


def read_facts(bundle: Path) -> dict[str, Any]:
    """The content of bundle.json.

    Raises: InputError where there is none, or something else than a JSON object.
    """
    facts = read_json(bundle / FACTS_FILE)
    if not isinstance(facts, dict):
        raise InputError(f"{bundle / FACTS_FILE}: must hold a JSON object")
    return facts


def _attempt(name: str, required: str, action: Callable[[], None]) -> Check:
    try:
        action()
    except InputError as error:
        return Check(name, None, required, False, str(error))
    return Check(name, None, required, True, required)


def _same_metrics(facts: Any, metrics: Any) -> Check:
    """The evaluation must be that of the model in the bundle: export wrote each task's metrics into it."""
    tasks = _look_up(facts, "tasks")
    others = [task for task in tasks or () if _look_up(tasks, task, "metrics") != _look_up(metrics, "tasks", task)]
    if others:
        reason = f"{FACTS_FILE} and the evaluation differ on {', '.join(sorted(others))}: the evaluation is of another model"
        return Check("bundle/metrics", None, "those of the evaluation", False, reason)
    if not tasks:
        return Check("bundle/metrics", None, "those of the evaluation", False, f"{FACTS_FILE} names no task")
    return Check("bundle/metrics", None, "those of the evaluation", True, "the same")


def _parity(facts: Any) -> Check:
    measured, largest = _number(facts, "parity", "relative_error"), _number(facts, "parity", "max_relative_error")
    if largest is None:
        return Check("bundle/parity", measured, "measured", False, f"{FACTS_FILE} does not say parity.max_relative_error")
    return _within("bundle/parity", measured, maximum=largest)


def _within(name: str, value: float | None, *, minimum: float | None = None, maximum: float | None = None) -> Check:
    limits = ((minimum, "at least"), (maximum, "at most"))
    required = " and ".join(f"{words} {limit:.6g}" for limit, words in limits if limit is not None)
    is_inside = value is not None and (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
    return _compare(name, value, required, is_inside, f"must be {required}")


def _compare(name: str, value: float | None, required: str, is_inside: bool, reason: str) -> Check:
    if value is None:
        return Check(name, None, required, False, f"missing or not a finite number; must be {required}")
    return Check(name, value, required, is_inside, f"is {value:.6g}, {reason}")


def _number(document: Any, *path: object) -> float | None:
    """The finite number at that path; None for everything else."""
    value = _look_up(document, *path)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _look_up(document: Any, *path: object) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def present_version(registry: Path, against: str) -> str:
    """The number of the version that is in the stage `name#stage` now; empty where none is."""
    version = _in_stage(registry, against)
    return version.version if version else ""


def _in_stage(registry: Path, against: str) -> Version | None:
    name, _, stage = against.partition("#")
    return read_history(registry, name).in_stage(stage)


def _rival(registry: Path, against: str) -> Rival | None:
    version = _in_stage(registry, against)
    if not version:
        return None
    text = read_release_file(registry, version, METRICS_FILE)
    return Rival(version.version, json.loads(text) if text else None)


def _digest(bundle: Path) -> str | None:
    try:
        return checksums_digest(bundle)
    except InputError:
        # The check on the hashes has said what is wrong.
        return None


def _summary(checks: list[Check], rival: Rival | None) -> str:
    failed = sum(not check.passed for check in checks)
    headline = f"refused, {failed} of {len(checks)} checks failed" if failed else f"passed, all {len(checks)} checks"
    rows = [
        f"| {'✓' if check.passed else '✗'} | {check.name} | {'-' if check.value is None else f'{check.value:.6g}'} | {check.required} |"
        for check in checks
    ]
    reasons = [f"- {check.name}: {check.reason}" for check in checks if not check.passed]
    lines = [f"# Gate: {headline}", "", _compared(rival), "", "| | check | value | required |", "|-|-|-|-|", *rows]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])]) + "\n"


def _compared(rival: Rival | None) -> str:
    if not rival:
        return "Compared with nothing: the stage is empty."
    if rival.metrics is None:
        return f"Not compared with {rival.version}: it was forced into the registry without metrics."
    return f"Compared with {rival.version}."


def _log(checks: list[Check], rival: Rival | None) -> None:
    failed = [check for check in checks if not check.passed]
    for check in failed:
        logger.warning("gate: %s failed: %s", check.name, check.reason)
    result = f"refused ({len(failed)} of {len(checks)} checks failed)" if failed else f"passed ({len(checks)} checks)"
    logger.info("gate: %s. %s", result, _compared(rival))
