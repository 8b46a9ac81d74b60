"""Half precision means the same for a network that is copied (DDP) and for one that is split (FSDP2)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.lavin_dit.training.half_precision_run import LAYOUTS
from tests.lavin_dit.training.tiny_runs import run, torchrun

SAME_LOSS = 1e-3
SAME_GRADIENT = 0.03
"""Relative, of all gradients together. Seen: 5e-5 and 0.012; half precision itself is 0.013 from float32."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    run([*torchrun(2), str(Path(__file__).with_name("half_precision_run.py")), str(folder)])
    return folder


@pytest.fixture(scope="module")
def passes(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {name: load_file(folder / f"{name}.safetensors") for name in LAYOUTS}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of all gradients together, relative to the other's."""
    assert one.keys() == other.keys()
    flat, other_flat = (torch.cat([side[name].flatten().float() for name in other if name != "loss"]) for side in (one, other))
    return float((flat - other_flat).norm() / other_flat.norm())


def test_a_split_network_has_the_copies_loss_and_gradients(passes: dict[str, dict[str, Tensor]]) -> None:
    assert float(passes["split"]["loss"]) == pytest.approx(float(passes["copied"]["loss"]), rel=SAME_LOSS)
    assert distance(passes["split"], passes["copied"]) < SAME_GRADIENT


def test_it_is_no_further_from_float32_than_they_are(passes: dict[str, dict[str, Tensor]]) -> None:
    split, copied = (distance(passes[name], passes["float32"]) for name in ("split", "copied"))
    assert 0 < split < 1.5 * copied


def test_all_gradients_are_float32(passes: dict[str, dict[str, Tensor]]) -> None:
    assert {tensor.dtype for tensors in passes.values() for tensor in tensors.values()} == {torch.float32}


def test_times_latents_and_rotations_reach_the_network_as_they_are(folder: Path) -> None:
    assert {name: (folder / f"{name}.narrowed").read_text() for name in LAYOUTS} == dict.fromkeys(LAYOUTS, "")
