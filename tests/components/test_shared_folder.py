import os
import shutil
import threading
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


def begin(target: Path, inputs: dict[str, Path], *overrides: str, saves: bool = True, step: int = 2) -> None:
    """A run that is killed after a checkpoint, or before its first."""
    config = config_of(*overrides)
    with suppress(KilledError), shared_folder(target, config, inputs, ALONE) as folder:
        if saves:
            run = Checkpoints(folder / CHECKPOINTS, config.checkpoints, ALONE, identity=run_identity(config, inputs))
            run.save(step, {"weight": torch.ones(3)}, {}, score=1.0, final=True)
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


def test_a_run_whose_checkpoints_lie_elsewhere_does_not_begin_anew(inputs: dict[str, Path], tmp_path: Path) -> None:
    target, mounted = tmp_path / "out" / "vae", tmp_path / "mounted"
    begin(target, inputs)
    elsewhere = f"train_vae.checkpoints.location={mounted}"
    own = partial_of(target) / CHECKPOINTS
    with pytest.raises(InputError, match=rf"^checkpoints\.location is {mounted}: the checkpoints of this run lie in {own}, up to step 2: "):
        steps_found(target, inputs, elsewhere)
    (own / "step-00000002").rename(mounted / "step-00000002")
    begin(target, inputs, elsewhere, saves=False)
    with pytest.raises(InputError, match=rf"^checkpoints\.location is null: the checkpoints of this run lie in {mounted}, up to step 2: "):
        steps_found(target, inputs)
    assert (mounted / "step-00000002").is_dir()
    assert steps_found(target, inputs, elsewhere) == []


def test_a_folder_with_checkpoints_of_another_run_is_refused_and_never_taken_for_the_runs_own(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    target, theirs, mounted = tmp_path / "out" / "vae", tmp_path / "theirs", tmp_path / "mounted"
    begin(tmp_path / "other" / "vae", inputs, f"train_vae.checkpoints.location={theirs}", "train_vae.seed=5", step=9)
    begin(target, inputs)
    with pytest.raises(InputError, match=rf"^checkpoints\.location is {theirs}: holds checkpoints of another run \(seed is 5 there and "):
        steps_found(target, inputs, f"train_vae.checkpoints.location={theirs}")
    with pytest.raises(InputError, match=rf"the checkpoints of this run lie in {partial_of(target)}/checkpoints, up to step 2: "):
        steps_found(target, inputs, f"train_vae.checkpoints.location={mounted}")
    assert steps_found(target, inputs) == ["step-00000002"]


def test_checkpoints_that_another_run_wrote_where_this_one_was_are_not_left_behind(inputs: dict[str, Path], tmp_path: Path) -> None:
    target, shared = tmp_path / "out" / "vae", f"train_vae.checkpoints.location={tmp_path / 'shared'}"
    begin(target, inputs, shared, saves=False)
    begin(tmp_path / "other" / "vae", inputs, shared, "train_vae.seed=5", step=9)
    assert steps_found(target, inputs) == []


def test_a_run_does_not_wait_for_another_whose_checkpoints_will_stay(inputs: dict[str, Path], tmp_path: Path) -> None:
    shared = f"train_vae.checkpoints.location={tmp_path / 'shared'}"
    begin(tmp_path / "a" / "vae", inputs, shared)
    refused = pytest.raises(InputError, match=r"^checkpoints\.location is \S+/shared: holds checkpoints of another run")

    def ask() -> None:
        with refused:
            steps_found(tmp_path / "b" / "vae", inputs, shared, "train_vae.seed=5")

    other = threading.Thread(target=ask, daemon=True)
    with suppress(KilledError), shared_folder(tmp_path / "a" / "vae", config_of(shared), inputs, ALONE):
        other.start()
        other.join(10.0)
        assert not other.is_alive()
        raise KilledError


def test_a_location_that_cannot_be_written_to_is_refused_before_training(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr("components.folders.fcntl.flock", refuse)
    with pytest.raises(InputError, match=r"^checkpoints\.location is \S+/mounted: cannot be written to \(Read-only file system\)$"):
        steps_found(tmp_path / "out" / "vae", inputs, f"train_vae.checkpoints.location={tmp_path / 'mounted'}")


def test_two_runs_take_turns_at_a_location(inputs: dict[str, Path], tmp_path: Path) -> None:
    mounted = f"train_vae.checkpoints.location={tmp_path / 'mounted'}"
    other = threading.Thread(target=begin, args=(tmp_path / "b" / "vae", inputs, mounted, "train_vae.seed=5"), kwargs={"saves": False})
    with suppress(KilledError), shared_folder(tmp_path / "a" / "vae", config_of(mounted), inputs, ALONE):
        other.start()
        other.join(0.5)
        assert other.is_alive()
        raise KilledError
    other.join(10.0)
    assert not other.is_alive()


@pytest.mark.parametrize("path", ["out/vae", "out/vae/weights.safetensors"])
def test_the_weights_that_a_run_begins_from_are_not_written_over(path: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out" / "vae").mkdir(parents=True)
    given = f"train_vae.initial_weights={{path: {tmp_path / path}, sha256: '{'0' * 64}'}}"
    with pytest.raises(InputError, match=r"^initial_weights\.path is \S+: lies where this step writes its own weights"):
        steps_found(tmp_path / "out" / "vae", inputs, given)
    assert (tmp_path / "out" / "vae").is_dir()


def test_where_a_weights_file_lies_is_no_part_of_a_run(inputs: dict[str, Path]) -> None:
    def identity(path: str, digit: str) -> Any:
        return run_identity(config_of(f"train_vae.initial_weights={{path: {path}, sha256: '{digit * 64}'}}"), inputs)

    assert identity("/here", "1") == identity("/there", "1")
    assert identity("/here", "1") != identity("/here", "2")
