from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavin_dit.adapter import dit_from_authors, dit_to_authors, load_authors_dit, load_authors_vae, vae_from_authors, vae_to_authors
from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
from lavin_dit.vae.st_vae import STVae

VAE, DIT = VAE_PRESETS["tiny"], DIT_PRESETS["tiny"]
State = dict[str, Tensor]


def authors_vae() -> State:
    return vae_to_authors(STVae(VAE).state_dict())


def authors_dit() -> State:
    dit = JDit(DIT)
    dit.initialise(torch.Generator().manual_seed(0))
    return dit_to_authors(dit.state_dict())


def without(state: State, name: str) -> State:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize("preset", VAE_PRESETS)
def test_vae_names_go_there_and_back_for_every_preset(preset: str) -> None:
    with torch.device("meta"):
        ours = STVae(VAE_PRESETS[preset]).state_dict()
    theirs = vae_to_authors(ours)
    assert len(set(theirs)) == len(ours)
    assert list(vae_from_authors(theirs)) == list(ours)


@pytest.mark.parametrize("preset", DIT_PRESETS)
def test_dit_names_go_there_and_back_for_every_preset(preset: str) -> None:
    with torch.device("meta"):
        ours = JDit(DIT_PRESETS[preset]).state_dict()
    theirs = dit_to_authors(ours)
    assert len(set(theirs)) == len(ours)
    assert list(dit_from_authors(theirs)) == list(ours)


@pytest.mark.parametrize("rename", [vae_from_authors, vae_to_authors, dit_from_authors, dit_to_authors])
def test_a_name_that_neither_side_knows_is_refused_by_name(rename: Callable[[State], State]) -> None:
    with pytest.raises(InputError, match=r"^discriminator\.0\.weight: is not a weight of "):
        rename({"discriminator.0.weight": torch.zeros(1)})


def save_vae_file(path: Path, state: State) -> Path:
    torch.save({"state_dict": state}, path)
    return path


def save_dit_file(path: Path, state: State) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def test_a_vae_file_must_hold_exactly_its_weights(tmp_path: Path) -> None:
    state, name = authors_vae(), "decoder.mid_block.resnets.0.norm1.conv_y.conv.weight"
    path = tmp_path / "stvae.pt"
    for wrong, sentence in (
        (without(state, name), f"{name} is missing"),
        ({**state, "loss.logvar": torch.zeros(1)}, "loss.logvar is unknown to a network of this size"),
        ({**state, name: state[name][:1]}, rf"{name} is \(1, 16, 1, 1, 1\), must be \(16, 16, 1, 1, 1\) for this size"),
    ):
        with pytest.raises(InputError, match=rf"stvae\.pt: {sentence}"):
            load_authors_vae(save_vae_file(path, wrong), VAE)
    loaded = load_authors_vae(save_vae_file(path, state), VAE)
    assert all(torch.equal(tensor, state[name]) for name, tensor in vae_to_authors(loaded.module.state_dict()).items())


def test_a_dit_file_must_hold_exactly_its_weights(tmp_path: Path) -> None:
    state, name = authors_dit(), "blocks.1.joint_attn.x_qnorm.weight"
    path = tmp_path / "lavin_dit.safetensors"
    for wrong, sentence in (
        (without(state, name), f"{name} is missing"),
        (
            {**state, "blocks.2.x_mlp.up_proj.weight": torch.zeros(1)},
            r"blocks\.2\.x_mlp\.up_proj\.weight is unknown to a network of this size",
        ),
        ({**state, name: state[name][:1]}, rf"{name} is \(1,\), must be \(48,\) for this size"),
    ):
        with pytest.raises(InputError, match=rf"lavin_dit\.safetensors: {sentence}"):
            load_authors_dit(save_dit_file(path, wrong), DIT)
    loaded = load_authors_dit(save_dit_file(path, state), DIT)
    assert all(torch.equal(tensor, state[name]) for name, tensor in dit_to_authors(loaded.state_dict()).items())


def test_half_precision_files_load_in_single_precision(tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in authors_dit().items()}
    dit = load_authors_dit(save_dit_file(tmp_path / "lavin_dit.safetensors", state), DIT)
    assert {parameter.dtype for parameter in dit.parameters()} == {torch.float32}


class NotData:
    """Something that a pickle could run."""


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    for content in (b"", b"not weights at all", b"\x80\x02."):
        path.write_bytes(content)
        for load in (load_authors_vae, load_authors_dit):
            with pytest.raises(InputError, match="weights: cannot be read as the authors'"):
                load(path)
    for value in ({"model": {}}, [1], {"state_dict": [1]}, {"state_dict": {"a": 1}}, {"state_dict": NotData()}):
        torch.save(value, path)
        with pytest.raises(InputError, match="weights: cannot be read as the authors' ST-VAE"):
            load_authors_vae(path)
    path.unlink()
    for load in (load_authors_vae, load_authors_dit):
        with pytest.raises(InputError, match="weights: cannot be read as the authors'"):
            load(path)
