"""Pages of Markdown for the KFP UI: what a run was asked to do, what it promoted, how it ended."""

from collections.abc import Mapping
from typing import Any

from components.code_version import git_commit, source_hash
from components.launcher.settings import JobSettings
from components.outcome import SUCCEEDED, Outcome
from components.run_plan import RunData
from components.run_request import NOWHERE, RunRequest
from lavin_dit.config import Config

SHOWN_HASH_LENGTH = 16


def plan_page(request: RunRequest, config: Config, *, data: RunData, rival: str, job: JobSettings) -> str:
    """What `resolve` found out."""
    shape, stage = config.train_dit.shape, request.stage_of(config)
    rows = {
        "Parameters": ("the text of params" if request.params else f"recipe {request.recipe}"),
        "Changed": ", ".join(f"`{override}`" for override in request.overrides) or "nothing",
        "Data": f"{data.origin}, md5 {data.hash}",
        "Rendered scenes": f"{config.prepare.num_train_scenes} to train, {config.prepare.num_test_scenes} held out",
        "Tasks": ", ".join(config.prepare.tasks),
        "J-DiT": f"depth {shape.depth}, width {shape.dim}, {shape.num_heads} heads, {config.train_dit.steps} steps",
        "Training": _training(job),
        "Compared with": f"{config.gate.against} ({rival or 'empty'})",
        "Promoted to": "nothing" if stage == NOWHERE else f"{stage}, where the gate lets it pass",
        "Code": f"{git_commit() or 'no commit'}, source {source_hash()[:SHOWN_HASH_LENGTH]}",
    }
    return _page("What this run does", rows)


def _training(job: JobSettings) -> str:
    if not job.is_on_cluster:
        return f"in the step itself, {_count(job.processes, 'process', 'es')}"
    fewer = "" if job.nodes == job.min_nodes else f"{job.min_nodes} to "
    return f"{job.launcher}, {fewer}{_count(job.nodes, 'node')} of {_count(job.processes, 'process', 'es')}, {job.accelerator}"


def _count(number: int, name: str, plural: str = "s") -> str:
    return f"{number} {name}{plural if number > 1 else ''}"


def promotion_page(promotion: Mapping[str, Any]) -> str:
    """Which version is in which stage now."""
    name, version, stage = promotion["name"], promotion["version"], promotion["stage"]
    title = f"{name} {version} is in {stage}" + ("" if promotion["changed"] else ", as before")
    rows = {
        "Registry": promotion["registry"],
        "Commit": promotion["commit"],
        "Bundle": f"sha256 {promotion['bundle_sha256']}",
        "Roll back": f"`lavin rollback --stage {stage} --registry {promotion['registry']}`",
    }
    return _page(title, rows)


def outcome_page(outcome: Outcome) -> str:
    """How a run ended."""
    rows = {
        "Error": outcome.error or "none",
        "Promoted": outcome.promoted or "nothing",
        "Tasks that beat both baselines": f"{outcome.metrics.get('tasks_beating_baselines', 'not measured')}",
        **{f"Output {name}": f"`{place}`" for name, place in outcome.done.items()},
        "Into DVC": f"`lavin record {outcome.run_id}`" if outcome.state == SUCCEEDED else "once it has succeeded",
    }
    return _page(f"Run {outcome.run_id}: {outcome.state.lower()}", rows)


def _page(title: str, rows: Mapping[str, str]) -> str:
    # A line break or a bar would end a cell.
    cells = [f"| {name} | {' '.join(value.split()).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join([f"# {title}", "", "| | |", "|-|-|", *cells]) + "\n"
