from pathlib import Path

import pytest

from pipelines.relay import Relay

KFP = [
    "03:00:00.000 - INFO - Executing task 'prepare'",
    "    [KFP Executor 2026-01-01 INFO]: Got executor_input:",
    "    {",
    '        "inputs": {}',
    "    }",
    "    step prepare: started",
    "    progress: render scenes 3/10 1/s eta 7s",
    "    ",
    "    step prepare: finished in 3.0 s",
    "    [KFP Executor 2026-01-01 INFO]: Wrote executor output file",
    "03:00:03.000 - INFO - Task 'prepare' outputs:",
    "    shards: Dataset( name='shards',",
]


def test_a_person_sees_the_steps_lines_and_the_log_sees_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Relay(tmp_path / "log") as relay:
        for line in KFP:
            # KFP writes the indent and the line apart.
            relay.write(line[:4])
            relay.write(f"{line[4:]}\n")
    assert capsys.readouterr().out == ("step prepare: started\nprogress: render scenes 3/10 1/s eta 7s\nstep prepare: finished in 3.0 s\n")
    assert (tmp_path / "log").read_text() == "\n".join(KFP) + "\n"
    assert (relay.step, relay.cause) == ("prepare", "")


def test_the_cause_of_a_failure_is_kept_for_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Relay(tmp_path / "log") as relay:
        relay.write("    step prepare: started\n    lavin: error: a.png: cannot be read\nERROR failed\n    not ours\n")
    assert relay.cause == "lavin: error: a.png: cannot be read"
    assert capsys.readouterr().out == "step prepare: started\n"
