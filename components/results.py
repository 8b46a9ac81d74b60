"""Where a run's results lie: the store is addressed by content, so that the plan alone names every output."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.folders import fingerprint, read_json
from components.store import Store
from lavin_dit.config import section_from_json

RIVAL_FILE = "rival.json"
NO_RIVAL = "nothing"
INPUTS = {
    "vae": ("shards",),
    "dit": ("shards", "vae"),
    "evaluation": ("shards", "vae", "dit"),
    "bundle": ("shards", "vae", "dit", "evaluation"),
    "verdict": ("evaluation", "bundle"),
}
"""What each output was made from, of the outputs before it."""
STEP_OF = {"vae": "train_vae", "dit": "train_dit", "evaluation": "evaluate", "bundle": "export", "verdict": "gate"}


@dataclass(frozen=True)
class Results:
    """The folders of a run's outputs; None for what has not been made, or is gone."""

    plan: Path | None = None
    shards: Path | None = None
    vae: Path | None = None
    dit: Path | None = None
    evaluation: Path | None = None
    bundle: Path | None = None
    verdict: Path | None = None
    promotion: Path | None = None


def rival_fingerprint(version: str) -> str:
    """What stands for the registry among the gate's inputs: the version that was in the stage when the run began."""
    return version or NO_RIVAL


def find(workspace: Path, run_id: str) -> Results:
    """Walks from the plan to the last output that there is."""
    run = workspace / "runs" / run_id
    plan = _there(run / "plan")
    if not plan:
        return Results()
    facts = read_json(plan / "plan.json")
    store, config = Store(workspace / "store", facts["source_sha256"]), facts["config"]
    shards = _find("shards", "prepare", config, store, {"raw": facts["data"]["hash"]})
    found = {"plan": plan, "shards": shards, "promotion": _there(run / "promotion")}
    rival = {"registry": rival_fingerprint(read_json(plan / RIVAL_FILE)["version"])}
    for output, inputs in INPUTS.items():
        folders = {name: found[name] for name in inputs}
        known = {name: fingerprint(folder) for name, folder in folders.items() if folder}
        is_complete = len(known) == len(folders)
        extra = rival if output == "verdict" else {}
        found[output] = _find(output, STEP_OF[output], config, store, known | extra) if is_complete else None
    return Results(**found)


def _find(output: str, step: str, config: Mapping[str, object], store: Store, fingerprints: Mapping[str, str]) -> Path | None:
    section = section_from_json(step, json.dumps(config[step]))
    return _there(store.place(output, section, fingerprints))


def _there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
