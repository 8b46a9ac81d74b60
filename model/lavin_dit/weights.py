"""Weights on disk: a folder with weights.safetensors and model.json, never a pickle."""

import os
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.presets import DitShape, VaeShape
from lavin_dit.vae.st_vae import STVae

WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.json"

CONTENT_ERRORS = (
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
)
"""torch's restricted reader meets damaged bytes with any of these."""

OS_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True)
class LatentStatistics:
    """The two numbers that bring latents to zero mean and unit variance, measured on the training set."""

    shift: float
    scale: float

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents - self.shift) * self.scale

    def restore(self, latents: Tensor) -> Tensor:
        return latents / self.scale + self.shift


RELEASED_STATISTICS = LatentStatistics(shift=0.032470703125, scale=1.08936170213)
"""Those of the authors' released weights, for `normalise`."""


@dataclass(frozen=True)
class TrainedVae:
    """An ST-VAE with the statistics of its latents and the resolution it was trained at (pixels a side)."""

    module: STVae
    statistics: LatentStatistics
    resolution: int


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _VaeFacts(_Facts):
    shape: VaeShape
    statistics: LatentStatistics
    resolution: int


class _DitFacts(_Facts):
    shape: DitShape


FactsT = TypeVar("FactsT", bound=_Facts)


def save_vae(folder: Path, vae: TrainedVae) -> None:
    """Writes an ST-VAE into an existing folder."""
    facts = _VaeFacts(shape=vae.module.shape, statistics=vae.statistics, resolution=vae.resolution)
    _save(folder, vae.module.state_dict(), facts)


def load_vae(folder: Path) -> TrainedVae:
    """Reads an ST-VAE for inference.

    Raises: InputError where the folder does not hold one.
    """
    facts = _read_facts(folder, _VaeFacts)
    module = STVae(facts.shape)
    _fill(module, folder)
    return TrainedVae(module, facts.statistics, facts.resolution)


def save_dit(folder: Path, dit: JDit, state: dict[str, Tensor] | None = None) -> None:
    """Writes a J-DiT into an existing folder; `state` in place of its own weights where given (the moving average)."""
    _save(folder, dit.state_dict() if state is None else state, _DitFacts(shape=dit.shape))


def load_dit(folder: Path) -> JDit:
    """Reads a J-DiT for inference.

    Raises: InputError where the folder does not hold one.
    """
    module = JDit(_read_facts(folder, _DitFacts).shape)
    _fill(module, folder)
    return module


def are_numbers(tensor: Tensor) -> bool:
    """Whether it holds finite real numbers and nothing else: what a network can be filled with."""
    is_plain = tensor.layout is torch.strided and not tensor.is_meta and tensor.is_floating_point()
    return is_plain and bool(tensor.float().isfinite().all())


def num_parameters(module: nn.Module) -> int:
    """How many weights a network has, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def save_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, with texts by name in its header where they are given.

    Raises: OSError with the disk's own reason where it cannot be written.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:
        # The library wraps the system's error in text alone.
        number = OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    # The library makes files for their owner alone; on a shared volume others read them.
    path.chmod(0o644)


def _save(folder: Path, state: dict[str, Tensor], facts: _Facts) -> None:
    save_tensors(state, folder / WEIGHTS_FILE)
    (folder / MODEL_FILE).write_text(facts.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _read_facts(folder: Path, schema: type[FactsT]) -> FactsT:
    path = folder / MODEL_FILE
    try:
        return schema.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as this model's description ({' '.join(str(error).split())[:300]})") from error


def _fill(module: nn.Module, folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: does not hold these weights ({' '.join(str(error).split())[:300]})") from error
    module.eval().requires_grad_(False)
