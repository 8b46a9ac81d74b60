import time
from pathlib import Path

import pytest

from components.entry import StepFailedError
from components.folders import read_json, write_json
from components.refusals import REMEMBERED_S, refused_once
from lavin_dit.errors import InputError, TrainingDivergedError


def refuse(note: Path, error: Exception) -> None:
    with refused_once(note):
        raise error


@pytest.mark.parametrize("error", [InputError("steps is 0: must be above 0"), TrainingDivergedError("step 3 is not finite")])
def test_a_second_try_ends_with_the_same_line_and_does_nothing(tmp_path: Path, error: Exception) -> None:
    note = tmp_path / "run" / "train_vae.json"
    with pytest.raises(type(error)):
        refuse(note, error)
    with pytest.raises(type(error), match=rf"{error} \(not tried again for another \d+ s\)"), refused_once(note):
        pytest.fail("it was tried again")


def test_once_there_was_time_to_mend_it_it_is_tried_again(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    with pytest.raises(InputError):
        refuse(note, InputError("no"))
    write_json(note, {**read_json(note), "time": time.time() - REMEMBERED_S - 1})
    with refused_once(note):
        pass
    assert not note.exists()


def test_a_clock_that_was_set_back_keeps_nobody_waiting(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    write_json(note, {"kind": "InputError", "line": "no", "time": time.time() + 10_000})
    with refused_once(note):
        pass


def test_what_is_no_mistake_may_be_tried_again_at_once(tmp_path: Path) -> None:
    with pytest.raises(StepFailedError):
        refuse(tmp_path / "note.json", StepFailedError("the network failed"))
    assert list(tmp_path.iterdir()) == []
