"""What the report tells of a run's origin: data, networks, sampling, code and libraries, from the folders that evaluate reads."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

import lavin_dit
from components.code_version import git_commit, source_hash
from components.folders import fingerprint, read_json
from components.steps import STEP_OF_OUTPUT
from lavin_dit.config import EvaluateConfig
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.dit.j_dit import JDit
from lavin_dit.hashing import file_sha256
from lavin_dit.weights import WEIGHTS_FILE, TrainedVae, num_parameters

LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "pillow", "safetensors", "matplotlib")
CONFIG_NAME = "config.json"

Facts = dict[str, dict[str, str]]


def gather_facts(config: EvaluateConfig, inputs: Mapping[str, Path], shards: ShardSet, vae: TrainedVae, dit: JDit) -> Facts:
    """Short facts by group, in the order of the report."""
    return {
        "Data": _data_facts(inputs["shards"], shards),
        "Networks": _network_facts(inputs, vae, dit),
        "Sampling": {
            "grid": f"{config.sampling.num_points} points, {config.sampling.num_points - 1} steps",
            "guidance scale": f"{config.sampling.guidance_scale:g}",
            "context pairs": str(config.sampling.num_pairs),
            "seed": str(config.seed),
        },
        "Code": {
            "version": lavin_dit.__version__,
            "git commit": git_commit() or "not in a git repository",
            "source sha256": source_hash(),
        },
        "Libraries": {"Python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def gather_configs(config: EvaluateConfig, inputs: Mapping[str, Path]) -> dict[str, str]:
    """The text of each step's section, of those steps that recorded theirs."""
    files = {STEP_OF_OUTPUT[name]: folder / CONFIG_NAME for name, folder in inputs.items()}
    sections = {step: read_json(path) for step, path in files.items() if path.is_file()}
    return {step: _pretty(section) for step, section in {**sections, "evaluate": config.model_dump(mode="json")}.items()}


def _data_facts(folder: Path, shards: ShardSet) -> dict[str, str]:
    counts: dict[str, dict[str, int]] = read_json(folder / "manifest.json")["tasks"]
    return {
        "tasks": str(len(counts)),
        "training pairs": str(sum(numbers.get("train", 0) for numbers in counts.values())),
        "held-out pairs": str(sum(numbers.get("test", 0) for numbers in counts.values())),
        "held-out scenes": str(len({pair.scene for pair in shards.pairs})),
        "resolution": f"{shards.resolution} pixels a side",
        "manifest sha256": fingerprint(folder),
    }


def _network_facts(inputs: Mapping[str, Path], vae: TrainedVae, dit: JDit) -> dict[str, str]:
    shape = dit.shape
    return {
        "ST-VAE": f"{_num_parameters(vae.module)} parameters, widths {', '.join(map(str, vae.module.shape.widths))}",
        "J-DiT": f"{_num_parameters(dit)} parameters, depth {shape.depth}, width {shape.dim}, {shape.num_heads} heads",
        "latent shift, scale": f"{vae.statistics.shift:.4g}, {vae.statistics.scale:.4g}",
        "ST-VAE sha256": file_sha256(inputs["vae"] / WEIGHTS_FILE),
        "J-DiT sha256": file_sha256(inputs["dit"] / WEIGHTS_FILE),
    }


def _num_parameters(module: nn.Module) -> str:
    return f"{num_parameters(module) / 1e6:.3g} M"


def _pretty(section: Any) -> str:
    return json.dumps(section, indent=2, ensure_ascii=False)
