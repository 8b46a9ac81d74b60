"""Outputs are found by what made them: here each is a folder with one small file, put where the store has its place."""

from pathlib import Path

import pytest

from components.code_version import source_hash
from components.data_version import hash_tree
from components.folders import fingerprint, write_json
from components.resolve import write_plan
from components.results import RIVAL_FILE, STEP_OF, Results, find, rival_fingerprint
from components.store import Store
from lavin_dit.config import Config, load_config

TINY = Path(__file__).parents[1] / "tiny.yaml"
RUN = "run-1"
ORDER = {"shards": "prepare", **STEP_OF}
READ = {"vae": 1, "dit": 2, "evaluation": 3, "bundle": 4}
"""How many of the outputs before it each was made from; the gate reads the last two, and the registry."""


@pytest.fixture
def config() -> Config:
    return load_config(TINY, [])


@pytest.fixture
def workspace(tmp_path: Path, config: Config) -> Path:
    plan = tmp_path / "runs" / RUN / "plan"
    write_plan(config, hash_tree(tmp_path / "raw"), plan)
    write_json(plan / RIVAL_FILE, {"version": "v0.1.0"})
    return tmp_path


def make(workspace: Path, config: Config, output: str, known: dict[str, str]) -> Path:
    folder = Store(workspace / "store", source_hash()).place(output, getattr(config, ORDER[output]), known)
    folder.mkdir(parents=True)
    (folder / "content").write_text(output)
    if output == "shards":
        write_json(folder / "manifest.json", {"files": {}})
    return folder


def make_up_to(workspace: Path, config: Config, last: str) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for output in ORDER:
        names = {name: fingerprint(folder) for name, folder in made.items()}
        if output == "shards":
            known = {"raw": hash_tree(workspace / "raw")}
        elif output == "verdict":
            known = {name: names[name] for name in ("evaluation", "bundle")} | {"registry": rival_fingerprint("v0.1.0")}
        else:
            known = dict(list(names.items())[: READ[output]])
        made[output] = make(workspace, config, output, known)
        if output == last:
            break
    return made


def test_a_run_that_nobody_knows_has_nothing(tmp_path: Path) -> None:
    assert find(tmp_path, "unknown") == Results()


@pytest.mark.parametrize("last", ORDER)
def test_what_was_made_so_far_is_found_and_nothing_else(workspace: Path, config: Config, last: str) -> None:
    made = make_up_to(workspace, config, last)
    assert find(workspace, RUN) == Results(plan=workspace / "runs" / RUN / "plan", **made)  # type: ignore[arg-type]


def test_other_code_another_rival_and_another_section_made_something_else(workspace: Path, config: Config) -> None:
    made = make_up_to(workspace, config, "verdict")
    plan = workspace / "runs" / RUN / "plan"
    write_json(plan / RIVAL_FILE, {"version": ""})
    assert find(workspace, RUN).verdict is None
    assert find(workspace, RUN).bundle == made["bundle"]
    write_json(plan / RIVAL_FILE, {"version": "v0.1.0"})
    changed = config.model_copy(update={"export": config.export.model_copy(update={"seed": 1})})
    write_plan(changed, hash_tree(workspace / "raw"), plan)
    write_json(plan / RIVAL_FILE, {"version": "v0.1.0"})
    assert find(workspace, RUN).evaluation == made["evaluation"]
    assert find(workspace, RUN).bundle is None


def test_shards_are_not_read_for_their_name(workspace: Path, config: Config) -> None:
    made = make_up_to(workspace, config, "vae")
    (made["shards"] / "shard-00000.tar").write_bytes(b"of any size")
    assert find(workspace, RUN).vae == made["vae"]


def test_a_promotion_is_found_beside_the_plan(workspace: Path) -> None:
    promotion = workspace / "runs" / RUN / "promotion"
    promotion.mkdir()
    assert find(workspace, RUN).promotion == promotion
