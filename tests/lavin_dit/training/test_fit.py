from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavin_dit.config import OptimizerConfig, TrainingSection
from lavin_dit.errors import TrainingDivergedError
from lavin_dit.training.fit import Fitted, Objective, fit, learning_rate
from lavin_dit.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))
OPTIMIZER = OptimizerConfig(
    learning_rate=0.05, final_learning_rate=0.001, warmup_steps=5, betas=(0.9, 0.95), weight_decay=0.01, max_grad_norm=1.0, ema_decay=0.9
)


def section(**changed: Any) -> TrainingSection:
    settings = {"seed": 0, "steps": 60, "batch_size": 8, "checkpoint_every_steps": 10, "log_every_steps": 3}
    return TrainingSection(**({**settings, "optimizer": OPTIMIZER} | changed))


class KilledError(Exception):
    """Stands for a kill in a process that must go on testing."""


class Line(Objective[tuple[Tensor, Tensor]]):
    """Learns `y = 2 x - 1` from noisy samples; can be killed, or see a number that is none, at a step."""

    def __init__(self, *, killed_at: int | None = None, nan_at: int | None = None) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        self.killed_at, self.nan_at = killed_at, nan_at
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))

    def batch(self, step: int, samples: range) -> tuple[Tensor, Tensor]:
        if step == self.killed_at:
            raise KilledError
        draws = [torch.randn(2, generator=torch.Generator().manual_seed(1000 * step + sample)) for sample in samples]
        x, noise = torch.stack(draws).chunk(2, dim=1)
        return x, 2 * x - 1 + 0.1 * noise + (float("nan") if step == self.nan_at else 0.0)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        return {"loss": (self.network(x) - y).square().mean()}


def train(folder: Path, objective: Line, **changed: Any) -> Fitted:
    folder.mkdir(exist_ok=True)
    return fit("line", objective, section(**changed), ALONE, folder)


def test_a_run_resumed_after_any_kill_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", Line())
    for killed_at in (0, 5, 10, 11, 29, 59):
        folder = tmp_path / f"killed-{killed_at}"
        with pytest.raises(KilledError):
            train(folder, Line(killed_at=killed_at))
        resumed = train(folder, Line())
        assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())
        assert (folder / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()
        assert resumed.history.rows == whole.history.rows


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
    (tmp_path / "killed" / "checkpoints" / "step-00000030" / "state.pt").write_bytes(b"damaged")
    resumed = train(tmp_path / "killed", Line())
    assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())


def test_the_history_holds_every_logged_step_once_and_the_last_one(tmp_path: Path) -> None:
    fitted = train(tmp_path, Line(), steps=20, log_every_steps=6)
    assert [row["step"] for row in fitted.history.rows] == [6, 12, 18, 20]
    assert set(fitted.history.rows[0]) == {"step", "loss", "grad_norm"}


def test_training_learns(tmp_path: Path) -> None:
    rows = train(tmp_path, Line(), steps=150).history.rows
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]


def test_the_result_is_a_moving_average_of_the_weights(tmp_path: Path) -> None:
    still, moving = Line(), Line()
    last = train(tmp_path / "last", still, optimizer=OPTIMIZER.model_copy(update={"ema_decay": 0.0}))
    averaged = train(tmp_path / "averaged", moving)
    assert all(torch.equal(tensor, still.network.state_dict()[name]) for name, tensor in last.weights.items())
    assert all(torch.equal(tensor, moving.network.state_dict()[name]) for name, tensor in still.network.state_dict().items())
    assert not torch.equal(averaged.weights["0.weight"], last.weights["0.weight"])


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"no longer finite at step 25: lower optimizer\.learning_rate$"):
        train(tmp_path, Line(nan_at=25))
    healed, whole = train(tmp_path, Line()), train(tmp_path / "whole", Line())
    assert all(torch.equal(tensor, healed.weights[name]) for name, tensor in whole.weights.items())
    assert all(tensor.isfinite().all() for tensor in healed.weights.values())


def test_the_learning_rate_warms_up_to_its_peak_and_decays_to_its_end() -> None:
    rates = [learning_rate(step, 60, OPTIMIZER) for step in range(60)]
    assert rates[0] == pytest.approx(0.05 / 5)
    assert max(rates) == rates[5] == rates[4] == 0.05
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert learning_rate(60, 60, OPTIMIZER) == pytest.approx(0.001)
    assert rates[5 + 27] == pytest.approx((0.05 + 0.001) / 2, rel=0.05)
