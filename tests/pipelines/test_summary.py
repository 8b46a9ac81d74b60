import pytest

from pipelines.summary import first_winner

METRICS = {
    "tasks": {
        "depth": {"beats_baselines": False},
        "held_out": {"beats_baselines": True},
        "normals": {"beats_baselines": True},
        "optical_flow": {"beats_baselines": True},
    }
}


@pytest.mark.parametrize(
    ("exported", "task"),
    [({"depth", "normals"}, "normals"), ({"depth"}, "depth"), ({"normals", "held_out"}, "held_out")],
    ids=["held-out tasks and clips are not in a bundle", "none that wins", "the first that wins"],
)
def test_the_command_to_try_next_names_a_task_that_the_bundle_has(exported: set[str], task: str) -> None:
    assert first_winner(METRICS, exported) == task
