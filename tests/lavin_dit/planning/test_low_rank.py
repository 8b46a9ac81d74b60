from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lavin_dit.config import load_config
from lavin_dit.planning.devices import DEVICES
from lavin_dit.planning.dit_activations import Episodes
from lavin_dit.planning.layout import Layout, MicroBatches
from lavin_dit.planning.low_rank import BACKWARD, FORWARD, Accesses, updates_bytes
from lavin_dit.planning.speeds import dit_speed
from lavin_dit.planning.step_time import Fleet
from lavin_dit.training_config import LoraConfig

TINY = Path(__file__).parents[2] / "tiny.yaml"
EPISODES = Episodes.of_pairs(2, num_pairs=2, resolution=64)
RANK, TAKEN, GIVEN, TOKENS = 8, 192, 64, 4096


class Accessed(TorchDispatchMode):
    """Numbers that operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            self.numbers += sum(each.numel() for each in tree_leaves((args, kwargs, given)) if isinstance(each, Tensor))
        return given


def accessed(linear: nn.Module) -> tuple[int, int]:
    """Forward and backward, with the gradient of what it takes."""
    values = torch.randn(TOKENS, TAKEN, requires_grad=True)
    with Accessed() as forward:
        result = linear(values)
    with Accessed() as backward:
        torch.autograd.backward(result, torch.ones_like(result))
    return forward.numbers, backward.numbers


def expected(accesses: Accesses) -> int:
    return TOKENS * (accesses.taken * TAKEN + accesses.given * GIVEN + accesses.between * RANK)


def test_an_update_reads_and_writes_as_much_as_its_library_does() -> None:
    peft = pytest.importorskip("peft")
    plain = nn.Sequential(nn.Linear(TAKEN, GIVEN, bias=False)).requires_grad_(False)
    alone = accessed(plain)
    updated = accessed(peft.inject_adapter_in_model(peft.LoraConfig(r=RANK, target_modules=["0"], bias="none"), plain))
    for before, after, accesses in zip(alone, updated, (FORWARD, BACKWARD), strict=True):
        assert after - before == pytest.approx(expected(accesses), rel=0.05)


def test_updates_take_time_beside_the_products_that_they_update() -> None:
    config = load_config(TINY, ['train_dit.shape="0.1B"', "prepare.resolution=64"])
    updated = config.model_copy(update={"train_dit": config.train_dit.model_copy(update={"lora": LoraConfig(rank=16, alpha=16.0)})})
    fleet, parts = Fleet(DEVICES["h200"], Layout(1, 8), 0.4), MicroBatches(1, 2)
    plain, slower = (dit_speed(each, fleet, parts, backward=1.0).flops for each in (config, updated))
    assert plain == pytest.approx(0.4 * fleet.device.peak_flops("float32"))
    assert slower < plain


def test_what_is_recomputed_reads_and_writes_again() -> None:
    section = load_config(TINY).train_dit
    assert updates_bytes(section, EPISODES, recomputed=0.0) == 0
    section = section.model_copy(update={"lora": LoraConfig(rank=4, alpha=4.0)})
    none, once, twice = (updates_bytes(section, EPISODES, recomputed=recomputed) for recomputed in (0.0, 1.0, 2.0))
    assert 0 < once - none == twice - once < none
