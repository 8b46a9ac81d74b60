"""Training that goes on from weights that are there: all of them, a part of them, or low-rank updates beside them (LoRA)."""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lavin_dit.adapter import dit_from_authors, vae_from_authors
from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.planning.weights import check_frozen, is_frozen
from lavin_dit.section import WeightsFile
from lavin_dit.training_config import LoraConfig, TrainingSection
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import CONTENT_ERRORS, WEIGHTS_FILE, are_numbers

ADAPTER = "default"
"""The library's name of an adapter that has none."""
BASE = ".base_layer."

State = dict[str, Tensor]


def begin(network: nn.Module, config: TrainingSection, *, step: str) -> None:
    """Puts given weights in place of a network's fresh ones where there are some, and freezes what is to stay.

    Raises: InputError, which names the step's parameter; see `begin_from` and `freeze`.
    """
    if config.initial_weights:
        begin_from(network, config.initial_weights, key=f"{step}.initial_weights")
    freeze(network, config.frozen, key=f"{step}.frozen")


def begin_from(network: nn.Module, weights: WeightsFile, *, key: str) -> None:
    """Fills a network with the weights of a file or folder: this project's, or the authors' released ones.

    Raises: InputError, which names `key`, where the file is absent, is another than the hash says, or holds other weights than these.
    """
    file = _file_of(Path(weights.path), key)
    try:
        found = file_sha256(file)
    except OSError as error:
        raise InputError(f"{key}.path is {weights.path}: cannot be read ({error.strerror})") from error
    if found != weights.sha256:
        raise InputError(f"{key}.sha256 is {weights.sha256}: {file} has {found}")
    state = _in_our_names(network, _read(file, key))
    _check(network.state_dict(), state, f"{key}.path is {weights.path}")
    network.load_state_dict(state, strict=True)


def freeze(network: nn.Module, names: Sequence[str], *, key: str) -> None:
    """Takes weights out of training: those of these names, and those whose names begin so, up to a dot.

    Raises: InputError, which names `key`, for a name that no weight has, and where nothing is left to train.
    """
    weights = dict(network.named_parameters())
    check_frozen(names, {name: weight.requires_grad for name, weight in weights.items()}, key=key)
    for name, weight in weights.items():
        if is_frozen(name, names):
            weight.requires_grad_(False)


def adapt(network: JDit, lora: LoraConfig, generator: torch.Generator) -> None:
    """Puts low-rank updates beside the linears of the blocks that were to be trained, and trains nothing else; they begin as zero.

    Raises: InputError where the library is absent, or every linear of the blocks is frozen.
    """
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        raise InputError("lora is set: needs the package peft, which `pip install 'lavin-pipelines[lora]'` brings") from error
    linears = [name for name, module in network.named_modules() if name.startswith("blocks.") and _is_trained_linear(module)]
    if not linears:
        raise InputError("lora is set: frozen leaves no linear of the blocks to adapt")
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=linears, bias="none")
    # It draws first values from the global generator, which are replaced.
    with torch.random.fork_rng(devices=[]):
        peft.inject_adapter_in_model(config, network)
    for module in network.modules():
        if hasattr(module, "lora_A"):
            nn.init.kaiming_uniform_(module.lora_A[ADAPTER].weight, a=math.sqrt(5), generator=generator)  # type: ignore[index, union-attr]


def merge(network: JDit, averaged: Mapping[str, Tensor]) -> State:
    """The state of a plain J-DiT that computes what an adapted one does with these weights in place of its own, where there are some."""
    state = {**network.state_dict(), **averaged}
    merged = {name.replace(BASE, "."): tensor.detach() for name, tensor in state.items() if ".lora_" not in name}
    for name, module in network.named_modules():
        if hasattr(module, "lora_A"):
            down, up = (state[f"{name}.lora_{side}.{ADAPTER}.weight"].detach() for side in "AB")
            scaling: Any = module.scaling
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + scaling[ADAPTER] * (up @ down)
    return merged


def _file_of(path: Path, key: str) -> Path:
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{key}.path is {path}: must be a file of weights, or a folder that holds {WEIGHTS_FILE}")
    return file


def _read(file: Path, key: str) -> State:
    """Tensors by name, from safetensors or from a file of `torch.save`, of which no code is run."""
    try:
        return load_file(file)
    except SafetensorError:
        pass
    try:
        content = torch.load(file, weights_only=True, map_location="cpu")
    except CONTENT_ERRORS as error:
        raise InputError(f"{key}.path is {file}: is neither a safetensors file nor one of torch that holds tensors alone") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
        raise InputError(f"{key}.path is {file}: must hold tensors by name, at its top or under `state_dict`")
    return state


def _in_our_names(network: nn.Module, state: State) -> State:
    """As they are where they are not the authors' names."""
    rename = _renaming(network)
    if rename is None or state.keys() <= network.state_dict().keys():
        return state
    try:
        return rename(state)
    except InputError:
        return state


def _renaming(network: nn.Module) -> Callable[[State], State] | None:
    if isinstance(network, STVae):
        return vae_from_authors
    return dit_from_authors if isinstance(network, JDit) else None


def _check(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    for name in expected:
        if name not in state:
            raise InputError(f"{what}: lacks {name}{_more(expected.keys() - state.keys())}, which a network of this shape has")
    for name in state:
        if name not in expected:
            raise InputError(f"{what}: holds {name}{_more(state.keys() - expected.keys())}, which a network of this shape does not have")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            must = tuple(expected[name].shape)
            raise InputError(f"{what}: {name} is {tuple(tensor.shape)}, must be {must} for this shape")
        if not are_numbers(tensor):
            raise InputError(f"{what}: {name} must hold finite floating-point numbers")


def _more(names: Iterable[str]) -> str:
    others = len(list(names)) - 1
    return f" (and {others} more)" if others else ""


def _is_trained_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and module.weight.requires_grad
