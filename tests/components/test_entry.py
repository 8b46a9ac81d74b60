import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.entry import StepFailedError, raise_cause
from lavin_dit.errors import InputError, StoppedError

TRAINING = """
import sys, time
from pathlib import Path
from components import entry
from lavin_dit.errors import PreemptedError
from lavin_dit.training.preemption import StopRequest

entry.ORPHAN_GRACE_S = float(sys.argv[2])
entry.stop_when_nobody_reads()
with entry.clear_errors(), StopRequest() as request:
    print("ready", flush=True)
    while not request.is_made or sys.argv[3] == "hangs":
        time.sleep(0.01)
    Path(sys.argv[1]).touch()
    raise PreemptedError(7)
"""


def training(saved: Path, manner: str = "saves", grace_s: float = 60.0) -> list[str]:
    return [sys.executable, "-c", TRAINING, str(saved), str(grace_s), manner]


def test_a_run_that_was_stopped_says_that_it_is_saved_and_exits_with_143(tmp_path: Path) -> None:
    process = subprocess.Popen(training(tmp_path / "saved"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (output, process.returncode) == ("", 128 + signal.SIGTERM)
    assert errors == "lavin: stopped: SIGTERM after step 7, whose state is saved: run again to continue\n"
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(("manner", "grace_s"), [("saves", 60.0), ("hangs", 0.2)])
def test_an_orphan_saves_what_it_has_and_ends_soon(manner: str, grace_s: float, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(training(tmp_path / "saved", manner, grace_s), stdout=writer, stderr=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        assert lines.readline() == b"ready\n"
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists() == (manner == "saves")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("lavin: error: x is 3", InputError),
        ("lavin: failed: x is 3", StepFailedError),
        ("lavin: stalled: x is 3", StepFailedError),
        ("lavin: stopped: x is 3", StoppedError),
    ],
)
def test_what_another_process_said_keeps_its_kind(line: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^x is 3$"):
        raise_cause(line)
