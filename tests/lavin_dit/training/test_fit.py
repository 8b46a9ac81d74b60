from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavin_dit.errors import InputError, TrainingDivergedError
from lavin_dit.training.fit import Fitted, fit
from lavin_dit.training.history import read_history
from lavin_dit.training.objective import Adversary, Cost, Losses, Objective, Tally
from lavin_dit.training.optimizing import learning_rate
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import OptimizerConfig
from tests.lavin_dit.training.tiny_run import section

ALONE = Processes(0, 1, torch.device("cpu"))
OPTIMIZER = OptimizerConfig(
    learning_rate=0.05, final_learning_rate=0.001, warmup_steps=5, betas=(0.9, 0.95), weight_decay=0.01, max_grad_norm=1.0, ema_decay=0.9
)


class KilledError(Exception):
    """Stands for a kill in a process that must go on testing."""


class Line(Objective[tuple[Tensor, Tensor]]):
    """Learns `y = 2 x - 1` from noisy samples; can be killed at a data position, or see numbers there that are none or far too large."""

    network: nn.Sequential

    def __init__(self, *, killed_at: int | None = None, nan_at: tuple[int, ...] = (), huge_at: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        self.killed_at, self.nan_at, self.huge_at = killed_at, nan_at, huge_at
        self.positions: list[int] = []
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))

    def batch(self, step: int, samples: range) -> tuple[Tensor, Tensor]:
        if step == self.killed_at:
            raise KilledError
        self.positions.append(step)
        draws = [torch.randn(2, generator=torch.Generator().manual_seed(1000 * step + sample)) for sample in samples]
        x, noise = torch.stack(draws).chunk(2, dim=1)
        return x, 2 * x - 1 + 0.1 * noise + (float("nan") if step in self.nan_at else 1e6 if step in self.huge_at else 0.0)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Losses:
        x, y = batch
        return Losses((self.network(x) - y).square().mean())

    def cost(self, batch: tuple[Tensor, Tensor]) -> Cost:
        return Cost(len(batch[0]), 0.0)


def losses_of(fitted: Fitted) -> list[tuple[int, float]]:
    return [(row["step"], row["losses"]["loss"]) for row in fitted.history.rows]


def train(folder: Path, objective: Objective[Any], **changed: Any) -> Fitted:
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"steps": 60, "batch_size": 8, "log_every_steps": 3, "checkpoints": {"every_steps": 10}}
    optimizer = changed.pop("optimizer", OPTIMIZER)
    return fit("dit", objective, section(**settings | changed).model_copy(update={"optimizer": optimizer}), ALONE, folder)


def test_a_run_resumed_after_any_kill_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", Line())
    for killed_at in (0, 5, 10, 11, 29, 59):
        folder = tmp_path / f"killed-{killed_at}"
        with pytest.raises(KilledError):
            train(folder, Line(killed_at=killed_at))
        resumed = train(folder, Line())
        assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())
        assert (folder / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()
        assert losses_of(resumed) == losses_of(whole)


def test_a_run_goes_on_from_its_checkpoint_and_not_from_the_beginning(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path, Line(killed_at=35))
    with pytest.raises(KilledError):
        train(tmp_path, Line(killed_at=30))
    train(tmp_path, Line(killed_at=29))


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", Line())
    with pytest.raises(KilledError):
        train(tmp_path / "killed", Line(killed_at=35))
    shard = next((tmp_path / "killed" / "checkpoints" / "step-00000030").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    resumed = train(tmp_path / "killed", Line())
    assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())


def test_the_history_holds_every_logged_step_once_and_the_last_one(tmp_path: Path) -> None:
    fitted = train(tmp_path, Line(), steps=20, log_every_steps=6)
    assert [row["step"] for row in fitted.history.rows] == [6, 12, 18, 20]
    assert set(read_history(tmp_path / "history.csv")[0]) == {"step", "loss", "grad_norm", "learning_rate"}


def test_training_learns(tmp_path: Path) -> None:
    losses = losses_of(train(tmp_path, Line(), steps=150))
    assert losses[-1][1] < 0.1 * losses[0][1]


def test_the_result_is_a_moving_average_of_the_weights(tmp_path: Path) -> None:
    still, moving = Line(), Line()
    last = train(tmp_path / "last", still, optimizer=OPTIMIZER.model_copy(update={"ema_decay": 0.0}))
    averaged = train(tmp_path / "averaged", moving)
    assert all(torch.equal(tensor, still.network.state_dict()[name]) for name, tensor in last.weights.items())
    assert all(torch.equal(tensor, moving.network.state_dict()[name]) for name, tensor in still.network.state_dict().items())
    assert not torch.equal(averaged.weights["0.weight"], last.weights["0.weight"])


def test_a_step_whose_loss_is_no_number_is_skipped_and_the_weights_stay_finite(tmp_path: Path) -> None:
    fitted = train(tmp_path, Line(nan_at=(25,)))
    assert all(tensor.isfinite().all() for tensor in fitted.weights.values())
    losses = losses_of(fitted)
    assert losses[-1][1] < 0.1 * losses[0][1]


@pytest.mark.parametrize("trouble", ["nan_at", "huge_at"])
def test_after_too_many_skips_training_goes_back_and_past_the_data_that_did_it(trouble: str, tmp_path: Path) -> None:
    objective = Line(**{trouble: (33, 34, 35)})  # type: ignore[arg-type]
    fitted = train(tmp_path, objective)
    assert [row["step"] for row in fitted.history.rows] == list(range(3, 61, 3))
    assert all(tensor.isfinite().all() for tensor in fitted.weights.values())
    # Steps 30 to 35 are taken again with the data of positions 36 to 41, and so on to the end.
    assert [position for position in objective.positions if position >= 60] == list(range(60, 66))
    assert objective.positions.count(34) == 1


def test_a_killed_run_remembers_that_it_went_past_some_data(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", Line(nan_at=(33, 34, 35)))
    with pytest.raises(KilledError):
        train(tmp_path / "killed", Line(nan_at=(33, 34, 35), killed_at=55))
    resumed = train(tmp_path / "killed", Line(nan_at=(33, 34, 35)))
    assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())
    assert losses_of(resumed) == losses_of(whole)


def test_a_killed_run_remembers_what_it_skipped_and_went_back_on_before_its_checkpoint(tmp_path: Path) -> None:
    trouble = (12, 33, 34, 35)
    with pytest.raises(KilledError):
        train(tmp_path, Line(nan_at=trouble, killed_at=55), log_every_steps=60)
    # Steps 40 and on, of which the last one has the only row.
    (row,) = train(tmp_path, Line(nan_at=trouble), log_every_steps=60).history.rows
    assert (row["skipped_steps"], row["rollbacks"]) == ({"not_finite": 4, "spike": 0}, 1)


def test_a_row_of_steps_before_and_after_a_kill_tells_of_the_last_one_that_was_learnt_from(tmp_path: Path) -> None:
    train(tmp_path / "whole", Line(nan_at=(10, 11)))
    with pytest.raises(KilledError):
        train(tmp_path / "killed", Line(nan_at=(10, 11), killed_at=15))
    train(tmp_path / "killed", Line(nan_at=(10, 11)))
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "killed")]
    assert histories[0] == histories[1]
    assert "\n12," in histories[0]


class Sorted(Line):
    """Tells its loss by task too."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> Losses:
        loss = super().forward(batch).total
        return Losses(loss, tallies={"task": Tally(("line",), loss.detach()[None], loss.new_ones(1))})


@pytest.mark.parametrize("nan_at", [(13,), (33, 34, 35)])
def test_what_was_not_learnt_from_is_in_no_rows_mean(nan_at: tuple[int, ...], tmp_path: Path) -> None:
    rows = train(tmp_path, Sorted(nan_at=nan_at), log_every_steps=10).history.rows
    assert all(row["task_losses"]["line"] is not None for row in rows)


def test_a_rows_means_are_over_the_steps_before_a_kill_too(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", Sorted(), log_every_steps=15)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", Sorted(killed_at=13), log_every_steps=15)
    resumed = train(tmp_path / "killed", Sorted(), log_every_steps=15)
    assert [row["task_losses"] for row in resumed.history.rows] == [row["task_losses"] for row in whole.history.rows]


def test_a_row_tells_of_what_was_learnt_before_the_checkpoint_that_a_way_leads_back_to(tmp_path: Path) -> None:
    # From step 21 back to 18; the two steps up to the row are skipped again.
    train(tmp_path, Line(nan_at=(18, 19, 20, 21, 22)), log_every_steps=10, checkpoints={"every_steps": 6})
    assert [row["step"] for row in read_history(tmp_path / "history.csv")] == [10, 20, 30, 40, 50, 60]


def test_a_run_that_goes_wrong_again_and_again_is_given_up_and_its_checkpoints_stay(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"3 steps in a row up to step 46 .* lower optimizer\.learning_rate"):
        train(tmp_path, Line(nan_at=(33, 34, 35, 49, 50, 51)))
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))[-1] == "step-00000040"
    healed = train(tmp_path, Line())
    assert all(tensor.isfinite().all() for tensor in healed.weights.values())


def test_a_run_that_goes_wrong_before_its_first_checkpoint_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"up to step 5 .* before the first checkpoint"):
        train(tmp_path, Line(nan_at=(2, 3, 4)))


def test_a_run_of_other_parameters_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path, Line(killed_at=35))
    with pytest.raises(InputError, match=r"batch_size is 8 there and 4 here"):
        train(tmp_path, Line(), batch_size=4)
    train(tmp_path, Line(killed_at=29), execution={"micro_batch": 2}, log_every_steps=6)


class Rivals(Line):
    """A line, and a number beside it that is to become 3; remembers the mean loss of the step before."""

    def __init__(self, **trouble: Any) -> None:
        super().__init__(**trouble)
        self.number = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.number.weight)
        self.loss_before = 0.0

    def forward(self, batch: tuple[Tensor, Tensor]) -> Losses:
        line = super().forward(batch)
        rival = (self.number.weight - 3.0).square().sum()
        return Losses(line.total + rival, {"line": line.total.detach(), "rival": rival.detach()})

    def adversary(self) -> Adversary:
        return Adversary(self.number, learning_rate=0.2)

    def observe(self, means: Any) -> None:
        self.loss_before = means["line"]

    def state(self) -> dict[str, float]:
        return {"loss_before": self.loss_before}

    def take_up(self, state: Any) -> None:
        self.loss_before = state["loss_before"]


def test_an_adversary_is_trained_beside_the_network_and_resumed_with_it(tmp_path: Path) -> None:
    whole = Rivals()
    fitted = train(tmp_path / "whole", whole)
    assert float(whole.number.weight.detach()) == pytest.approx(3.0, abs=0.1)
    assert not any("number" in name for name in fitted.weights)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", Rivals(killed_at=35))
    resumed = Rivals()
    again = train(tmp_path / "killed", resumed)
    assert torch.equal(resumed.number.weight, whole.number.weight)
    assert resumed.loss_before == whole.loss_before > 0.0
    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in fitted.weights.items())


def test_the_learning_rate_warms_up_to_its_peak_and_decays_to_its_end() -> None:
    rates = [learning_rate(step, 60, OPTIMIZER) for step in range(60)]
    assert rates[0] == pytest.approx(0.05 / 5)
    assert max(rates) == rates[5] == rates[4] == 0.05
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert learning_rate(60, 60, OPTIMIZER) == pytest.approx(0.001)
    assert rates[5 + 27] == pytest.approx((0.05 + 0.001) / 2, rel=0.05)
