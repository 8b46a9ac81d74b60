"""Recomputation changes what is kept for the backward pass, and no number; what is selective repeats no product."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lavin_dit.presets import LATENT_CHANNELS, VAE_PRESETS
from lavin_dit.training.objective import Cost, Losses, Objective
from lavin_dit.training.processes import Processes
from lavin_dit.training.sharding import LaidOut
from lavin_dit.training_config import ExecutionConfig
from lavin_dit.vae.st_vae import STVae
from tests.lavin_dit.training.tiny_run import EXECUTION, Episode

ALONE = Processes(0, 1, torch.device("cpu"))
NUM_FRAMES, SIDE = 5, 16


class Clips(Objective[Tensor]):
    """The tiny ST-VAE takes a clip to itself."""

    network: STVae

    def __init__(self) -> None:
        super().__init__()
        self.network = STVae(VAE_PRESETS["tiny"])
        self.network.initialise(torch.Generator().manual_seed(0))

    def batch(self, step: int, samples: range) -> Tensor:
        return torch.randn(len(samples), 3, NUM_FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(step))

    def forward(self, batch: Tensor) -> Losses:
        reconstruction, mean, _ = self.network(batch, torch.zeros(len(batch), LATENT_CHANNELS, 2, SIDE // 8, SIDE // 8))
        return Losses((reconstruction - batch).square().mean() + mean.square().mean())

    def cost(self, batch: Tensor) -> Cost:
        return Cost(len(batch), 0.0)


def execution(**changed: Any) -> ExecutionConfig:
    return ExecutionConfig.model_validate(EXECUTION | changed)


def gradients(objective: Objective[Any], mode: str) -> tuple[list[Tensor], int]:
    """The loss and every gradient, and the operations that they took, forward and backward."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in objective.parameters():
            # Gates that begin at zero would hide what is behind them.
            weight.add_(torch.randn(weight.shape, generator=random) / 10)
    laid_out = LaidOut(objective, execution(activation_checkpointing=mode), ALONE)
    with FlopCounterMode(display=False) as counter:
        loss = laid_out.losses(objective.batch(0, range(2))).total
        loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *_gradients_of(objective)], counter.get_total_flops()


def _gradients_of(module: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in module.parameters() if weight.grad is not None]


@pytest.mark.parametrize("make", [Episode, Clips])
def test_what_is_computed_again_is_the_same_to_the_bit_and_only_whole_blocks_repeat_products(make: type[Objective[Any]]) -> None:
    found = {mode: gradients(make(), mode) for mode in ("none", "selective", "full")}
    plain, plain_flops = found["none"]
    for mode, (tensors, flops) in found.items():
        assert len(tensors) == len(plain) > 1
        assert all(torch.equal(tensor, other) for tensor, other in zip(tensors, plain, strict=True)), mode
        assert flops > plain_flops if mode == "full" else flops == plain_flops, mode


def lay_out(chosen: ExecutionConfig) -> None:
    objective: Objective[Any] = Episode()
    LaidOut(objective, chosen, ALONE)


def test_an_offload_that_moves_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lay_out(execution(sharding="full", cpu_offload=True))
    assert caplog.messages == ["execution.cpu_offload is true and has no effect: one process holds the whole state, and nothing is split"]
    caplog.clear()
    lay_out(execution())
    assert caplog.messages == []
