"""The authors' weights in our names, and ours in theirs: renames only, no number changes."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lavin_dit.dit.j_dit import JDit
from lavin_dit.errors import InputError
from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS, DitShape, VaeShape
from lavin_dit.vae.st_vae import STVae
from lavin_dit.weights import CONTENT_ERRORS, RELEASED_STATISTICS, TrainedVae

RELEASED_RESOLUTION = 512
"""Pixels a side of the last stage of the authors' training."""

Rename = tuple[str, str]
Network = TypeVar("Network", bound=nn.Module)


def _within(ours: str, authors: str, parts: Iterable[Rename]) -> tuple[Rename, ...]:
    return tuple((f"{ours}.{ours_part}", f"{authors}.{authors_part}") for ours_part, authors_part in parts)


CONVOLUTIONS = (("conv{n}", "conv{n}.conv"), ("shortcut", "conv_shortcut"))
ENCODER_BLOCK = (("norm{n}", "norm{n}"), *CONVOLUTIONS)
SPATIAL_NORM = (("norm", "norm_layer"), ("scale", "conv_y.conv"), ("shift", "conv_b.conv"))
DECODER_BLOCK = (*_within("norm{n}", "norm{n}", SPATIAL_NORM), *CONVOLUTIONS)

VAE_NAMES = (
    ("encoder.conv_in", "encoder.conv_in.conv"),
    *_within("encoder.stages.{i}.blocks.{j}", "encoder.down_blocks.{i}.resnets.{j}", ENCODER_BLOCK),
    ("encoder.stages.{i}.downsample.conv", "encoder.down_blocks.{i}.downsamplers.0.conv"),
    *_within("encoder.middle.{j}", "encoder.mid_block.resnets.{j}", ENCODER_BLOCK),
    ("encoder.norm_out", "encoder.norm_out"),
    ("encoder.conv_out", "encoder.conv_out.conv"),
    ("decoder.conv_in", "decoder.conv_in.conv"),
    *_within("decoder.middle.{j}", "decoder.mid_block.resnets.{j}", DECODER_BLOCK),
    *_within("decoder.stages.{i}.blocks.{j}", "decoder.up_blocks.{i}.resnets.{j}", DECODER_BLOCK),
    ("decoder.stages.{i}.upsample.conv", "decoder.up_blocks.{i}.upsamplers.0.conv"),
    *_within("decoder.norm_out", "decoder.norm_out", SPATIAL_NORM),
    ("decoder.conv_out", "decoder.conv_out.conv"),
)
"""Layers of the ST-VAE, ours and the authors'; `{i}` stands for the same number in both."""


def _of_side(ours: str, authors: str) -> tuple[Rename, ...]:
    """One side of a J-DiT block: ours is `prompt` or `answer`, the authors' `cond` or `x`."""
    attention = zip(("query", "key", "value", "query_norm", "key_norm", "out"), ("q", "k", "v", "qnorm", "knorm", "proj"), strict=True)
    return (
        *((f"blocks.{{i}}.attention.{ours}.{layer}", f"blocks.{{i}}.joint_attn.{authors}_{name}") for layer, name in attention),
        *((f"blocks.{{i}}.{ours}_feed_forward.{layer}", f"blocks.{{i}}.{authors}_mlp.{layer}_proj") for layer in ("gate", "up", "down")),
        (f"blocks.{{i}}.{ours}_modulation.linear", f"blocks.{{i}}.{authors}_modulation.1"),
    )


DIT_NAMES = (
    ("prompt_embedder.{i}", "cond_embedder.{i}"),
    ("answer_embedder.{i}", "x_embedder.{i}"),
    ("prompt_embed", "prompt_embed"),
    ("answer_embed", "answer_embed"),
    ("time_embedding.mlp.{i}", "t_embedder.mlp.{i}"),
    *_of_side("prompt", "cond"),
    *_of_side("answer", "x"),
    ("final_layer.modulation", "final_layer.adaLN_modulation.1"),
    ("final_layer.linear", "final_layer.linear"),
)
"""Layers of the J-DiT, ours and the authors'."""


def vae_from_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' ST-VAE weights (`stvae.pt`, its `state_dict`) under our names.

    Raises: InputError naming a weight that the authors' ST-VAE does not have.
    """
    return _renamed(state, _reversed(VAE_NAMES), "the authors' ST-VAE")


def vae_to_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `vae_from_authors`."""
    return _renamed(state, VAE_NAMES, "our ST-VAE")


def dit_from_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' J-DiT weights (`lavin_dit.safetensors`) under our names.

    Raises: InputError naming a weight that the authors' J-DiT does not have.
    """
    return _renamed(state, _reversed(DIT_NAMES), "the authors' J-DiT")


def dit_to_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `dit_from_authors`."""
    return _renamed(state, DIT_NAMES, "our J-DiT")


def load_authors_vae(path: Path, shape: VaeShape = VAE_PRESETS["paper"]) -> TrainedVae:
    """Reads the authors' `stvae.pt` for inference, in float32, with the statistics of the released latents.

    Raises: InputError naming the file, and the weight where one is unknown, missing or of another size.
    """
    with torch.device("meta"):
        module = STVae(shape)
    return TrainedVae(_filled(module, _state_dict(path), VAE_NAMES, path), RELEASED_STATISTICS, RELEASED_RESOLUTION)


def load_authors_dit(path: Path, shape: DitShape = DIT_PRESETS["3.4B"]) -> JDit:
    """Reads the authors' `lavin_dit.safetensors` for inference, in float32.

    Raises: InputError naming the file, and the weight where one is unknown, missing or of another size.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as the authors' J-DiT, a safetensors file ({_line(error)})") from error
    with torch.device("meta"):
        module = JDit(shape)
    return _filled(module, state, DIT_NAMES, path)


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, *CONTENT_ERRORS) as error:
        raise InputError(f"{path}: cannot be read as the authors' ST-VAE ({_line(error)})") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: cannot be read as the authors' ST-VAE (it must hold tensors by name under `state_dict`)")
    return state


def _filled(module: Network, state: dict[str, Tensor], names: Iterable[Rename], path: Path) -> Network:
    """The module with weights that must be exactly those that its shape asks for; errors use the authors' names."""
    expected = _renamed(module.state_dict(), names, "our network")
    for name in [*(set(state) ^ set(expected)), *state]:
        if name not in state:
            raise InputError(f"{path}: {name} is missing")
        if name not in expected:
            raise InputError(f"{path}: {name} is unknown to a network of this size")
        if state[name].shape != expected[name].shape:
            raise InputError(f"{path}: {name} is {tuple(state[name].shape)}, must be {tuple(expected[name].shape)} for this size")
    ours = _renamed(state, _reversed(names), "the authors' network")
    module.load_state_dict({name: tensor.float() for name, tensor in ours.items()}, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def _renamed(state: dict[str, Tensor], names: Iterable[Rename], owner: str) -> dict[str, Tensor]:
    patterns = [(_pattern(old), new) for old, new in names]
    renamed = {_rename(name, patterns, owner): tensor for name, tensor in state.items()}
    assert len(renamed) == len(state), "a rename must not bring two weights together"
    return renamed


def _rename(name: str, patterns: Iterable[tuple[re.Pattern[str], str]], owner: str) -> str:
    for pattern, new in patterns:
        if match := pattern.fullmatch(name):
            return new.format(**match.groupdict()) + (match["parameter"] or "")
    raise InputError(f"{name}: is not a weight of {owner}")


def _pattern(layer: str) -> re.Pattern[str]:
    """Matches a layer's weight and bias, or the parameter itself; numbers are caught by their placeholder's name."""
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(layer)) + r"(?P<parameter>\.(weight|bias))?")


def _reversed(names: Iterable[Rename]) -> tuple[Rename, ...]:
    return tuple((authors, ours) for ours, authors in names)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
