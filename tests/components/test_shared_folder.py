import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from components.folders import partial_of
from components.shared_folder import run_identity, shared_folder
from lavin_dit.config import load_config
from lavin_dit.errors import InputError
from lavin_dit.training.checkpoints import Checkpoints
from lavin_dit.training.fit import CHECKPOINTS
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import TrainVaeConfig

TINY = Path(__file__).parents[1] / "tiny.yaml"
ALONE = Processes(0, 1, torch.device("cpu"))


class KilledError(Exception):
    """Stands for a kill in a process that must go on testing."""


def config_of(*overrides: str) -> TrainVaeConfig:
    return load_config(TINY, overrides).train_vae


def begin(target: Path, inputs: dict[str, Path], *overrides: str, saves: bool = True) -> None:
    """A run that is killed after a checkpoint, or before its first."""
    config = config_of(*overrides)
    with suppress(KilledError), shared_folder(target, config, inputs, ALONE) as folder:
        if saves:
            run = Checkpoints(folder / CHECKPOINTS, config.checkpoints, ALONE, identity=run_identity(config, inputs))
            run.save(2, {"weight": torch.ones(3)}, {}, score=1.0, final=True)
        raise KilledError


def steps_found(target: Path, inputs: dict[str, Path], *overrides: str) -> list[str]:
    with shared_folder(target, config_of(*overrides), inputs, ALONE) as folder:
        return sorted(path.name for path in (folder / CHECKPOINTS).glob("step-*"))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_text("pictures")
    return {"shards": tmp_path / "shards"}


def test_a_killed_run_goes_on_whatever_of_execution_checkpoints_guard_and_logging_has_changed(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "out" / "vae"
    begin(target, inputs)
    free = ["execution.micro_batch=1", "checkpoints.keep_last=9", "guard.max_rollbacks=7", "log_every_steps=3"]
    assert steps_found(target, inputs, *(f"train_vae.{key}" for key in free)) == ["step-00000002"]
    assert [path.name for path in target.parent.iterdir()] == ["vae"]


OTHER_RUNS: dict[str, tuple[list[str], str]] = {
    "a parameter": (["train_vae.seed=5"], r"\(seed is \d+ there and 5 here\)"),
    "a nested one": (["train_vae.optimizer.weight_decay=0.5"], r"\(optimizer\.weight_decay is \S+ there and 0\.5 here\)"),
    "two": (["train_vae.seed=5", "train_vae.steps=77"], r"\(seed is \d+ there and 5 here; steps is \d+ there and 77 here\)"),
}


@pytest.mark.parametrize("name", OTHER_RUNS)
def test_checkpoints_of_other_parameters_are_never_wiped(name: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    overrides, told = OTHER_RUNS[name]
    begin(tmp_path / "vae", inputs)
    with pytest.raises(InputError, match=rf"\.vae\.partial: holds checkpoints of another run {told}: put it back, or remove this folder"):
        steps_found(tmp_path / "vae", inputs, *overrides)
    assert steps_found(tmp_path / "vae", inputs) == ["step-00000002"], "and the run itself still goes on"


def test_checkpoints_of_other_inputs_are_never_wiped(inputs: dict[str, Path], tmp_path: Path) -> None:
    begin(tmp_path / "vae", inputs)
    (inputs["shards"] / "a.tar").write_text("other pictures")
    with pytest.raises(InputError, match=r"another run \(inputs\.shards is [0-9a-f]+\.\.\. there and [0-9a-f]+\.\.\. here\): put it back"):
        steps_found(tmp_path / "vae", inputs)


def test_what_a_run_without_a_checkpoint_left_is_wiped(inputs: dict[str, Path], tmp_path: Path) -> None:
    begin(tmp_path / "vae", inputs, saves=False)
    (partial_of(tmp_path / "vae") / "left").touch()
    assert steps_found(tmp_path / "vae", inputs, "train_vae.seed=5") == []
    assert not (tmp_path / "vae" / "left").exists()


def test_a_folder_that_was_removed_as_the_sentence_says_begins_anew(inputs: dict[str, Path], tmp_path: Path) -> None:
    begin(tmp_path / "vae", inputs)
    shutil.rmtree(partial_of(tmp_path / "vae"))
    assert steps_found(tmp_path / "vae", inputs, "train_vae.seed=5") == []


def test_checkpoints_of_an_earlier_version_are_not_wiped_either(inputs: dict[str, Path], tmp_path: Path) -> None:
    begin(tmp_path / "vae", inputs)
    (tmp_path / ".vae.partial.key").write_text("0123abcd")
    with pytest.raises(InputError, match=r"another run \(one of an earlier version\)"):
        steps_found(tmp_path / "vae", inputs)


def test_where_a_weights_file_lies_is_no_part_of_a_run(inputs: dict[str, Path]) -> None:
    def identity(path: str, digit: str) -> Any:
        return run_identity(config_of(f"train_vae.initial_weights={{path: {path}, sha256: '{digit * 64}'}}"), inputs)

    assert identity("/here", "1") == identity("/there", "1")
    assert identity("/here", "1") != identity("/here", "2")
