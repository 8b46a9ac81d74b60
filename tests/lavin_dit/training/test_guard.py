import math

import pytest

from lavin_dit.errors import TrainingDivergedError
from lavin_dit.training.guard import WARMUP_LOSSES, Guard
from lavin_dit.training_config import GuardConfig

CONFIG = GuardConfig(spike_factor=4.0, max_skips_in_a_row=2, max_rollbacks=1, stall_timeout_s=1.0)


def settled(loss: float = 1.0) -> Guard:
    guard = Guard(CONFIG)
    for _ in range(WARMUP_LOSSES):
        assert guard.judge(loss, 1.0) == "learnt"
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_no_finite_number_is_skipped_from_the_first_step_on(loss: float, norm: float) -> None:
    assert Guard(CONFIG).judge(loss, norm) == "not_finite"


def test_a_spike_is_measured_against_the_running_mean_once_there_is_one() -> None:
    assert Guard(CONFIG).judge(1e6, 1.0) == "learnt"
    guard = settled()
    assert guard.judge(3.9, 1.0) == "learnt"
    assert guard.judge(40.0, 1.0) == "spike"
    assert guard.judge(1.0, 1.0) == "learnt"


def test_what_was_skipped_does_not_move_the_mean() -> None:
    guard = settled()
    assert [guard.judge(100.0, 1.0) for _ in range(5)] == ["spike"] * 5


def test_skips_in_a_row_ask_for_a_way_back_and_single_ones_do_not() -> None:
    guard = settled()
    for loss in (math.nan, 1.0, math.nan, 1.0):
        guard.judge(loss, 1.0)
        assert not guard.wants_rollback
    guard.judge(math.nan, 1.0)
    guard.judge(math.nan, 1.0)
    assert guard.wants_rollback


def test_after_the_allowed_ways_back_the_run_is_given_up_in_one_sentence() -> None:
    guard = settled()
    guard.judge(math.nan, 1.0)
    guard.judge(math.nan, 1.0)
    guard.roll_back(30)
    assert (guard.num_rollbacks, guard.wants_rollback) == (1, False)
    guard.judge(math.nan, 1.0)
    guard.judge(math.nan, 1.0)
    with pytest.raises(TrainingDivergedError, match=r"^2 steps in a row up to step 40 .* after 1 of 1 allowed ways back"):
        guard.roll_back(40)


def test_a_guard_that_takes_up_a_state_judges_like_the_one_that_gave_it() -> None:
    guard, other = settled(2.0), Guard(CONFIG)
    guard.judge(math.nan, 1.0)
    other.take_up(guard.state())
    assert other.state() == guard.state()
    assert [other.judge(loss, 1.0) for loss in (7.0, 9.0)] == [guard.judge(loss, 1.0) for loss in (7.0, 9.0)]
