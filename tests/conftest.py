"""What many tests share: bundles, verdicts and a registry (real git, DVC and GTO), and one tiny model that is really exported."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.folders import write_json
from components.registry.history import read_history
from components.registry.releases import Release, assign, register
from lavin_dit.data.shards.shard_set import write_manifest
from lavin_dit.data.shards.writer import ShardWriter
from lavin_dit.data.task import ImagePair
from lavin_dit.export.integrity import checksums_digest, write_checksums

# Before torch is imported, here and in every process a test starts: threads that fight for cores are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]

MakeBundle = Callable[..., Path]
MakeMetrics = Callable[..., dict[str, Any]]

EXPORT_SECTION = """
{"seed": 0, "sampling": {"num_points": 4, "guidance_scale": 1.5, "num_pairs": 2}, "parity_queries": 3, "max_relative_error": 1e-3}
"""


def _shared(variable: str, name: str) -> Path:
    """A folder of reference data from outside the project."""
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / name)
    if not folder.is_dir():
        pytest.skip(f"{variable} is not set, and {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def schemas() -> Path:
    """The published schemas of the systems that the project talks to: CRDs and the KFP API."""
    return _shared("LAVIN_SCHEMAS", "schemas")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """What a real cluster answered, scenario by scenario."""
    return _shared("LAVIN_FIXTURES", "fixtures")


def _make_bundle(folder: Path, *, words: str = "one", relative_error: float | None = 1e-5, **metrics: float) -> Path:
    (folder / "contexts").mkdir(parents=True)
    parity = {"relative_error": relative_error, "max_relative_error": 1e-3, "passed": True}
    tasks = {name: {"title": name, "metrics": entry} for name, entry in _make_metrics(**metrics)["tasks"].items()}
    write_json(folder / "bundle.json", {"format": 1, "parity": parity, "tasks": tasks})
    (folder / "model_card.md").write_text(f"# {words}\n")
    (folder / "dit_velocity.onnx").write_bytes(words.encode() * 100)
    (folder / "contexts" / "depth.npz").write_bytes(b"\0\1\2")
    write_checksums(folder)
    return folder


def _make_metrics(*, abs_rel: float = 0.2, psnr: float = 20.0) -> dict[str, Any]:
    depth = {"metric": "abs_rel", "better": "lower", "beats_baselines": True, "model": {"abs_rel": abs_rel, "delta1": 0.8}}
    denoising = {"metric": "psnr", "better": "higher", "beats_baselines": True, "model": {"psnr": psnr}}
    return {"tasks": {"depth": depth, "denoising": denoising}, "tasks_beating_baselines": 2, "num_tasks": 2}


def _make_verdict(bundle: Path, *, passed: bool = True, compared_with: str | None = None, **metrics: float) -> Path:
    """Beside the bundle, where `lavin promote` looks for it."""
    folder = bundle.parent / "verdict"
    folder.mkdir(exist_ok=True)
    check = {"name": "depth/abs_rel", "value": 0.9, "required": "at most 0.5", "passed": passed, "reason": "is 0.9"}
    verdict = {"passed": passed, "checks": [check], "against": "lavin-dit#production", "compared_with": compared_with}
    write_json(folder / "verdict.json", verdict | {"bundle_sha256": checksums_digest(bundle)})
    write_json(folder / "metrics.json", _make_metrics(**metrics))
    return folder


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    return _make_bundle


@pytest.fixture(scope="session")
def make_metrics() -> MakeMetrics:
    return _make_metrics


@pytest.fixture(scope="session")
def make_verdict() -> MakeBundle:
    return _make_verdict


@pytest.fixture(scope="session")
def _registry_made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("registry-home")
    for words, metrics in (("one", _make_metrics(abs_rel=0.3)), ("two", _make_metrics(abs_rel=0.2))):
        bundle = _make_bundle(home / words / "bundle", words=words)
        register(home / "registry", Release("lavin-dit", bundle, metrics))
    for version in read_history(home / "registry", "lavin-dit").versions:
        assign(home / "registry", version, "production")
    return home


@pytest.fixture
def registry(_registry_made_once: Path, tmp_path: Path) -> Path:
    """A registry of one's own: v0.1.0 was in production, v0.2.0 is; their bundles lie beside it under `one/` and `two/`."""
    home = tmp_path / "home"
    shutil.copytree(_registry_made_once, home, symlinks=True)
    return home / "registry"


@pytest.fixture(scope="session")
def export_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `export` reads, from a tiny model with random weights, none of them zero, and two tasks of noise at 32 pixels."""
    import numpy as np
    import torch

    from lavin_dit.data.shards.shard_set import SPLITS
    from lavin_dit.dit.j_dit import JDit
    from lavin_dit.presets import DIT_PRESETS, VAE_PRESETS
    from lavin_dit.vae.st_vae import STVae
    from lavin_dit.weights import LatentStatistics, TrainedVae, save_dit, save_vae

    home = tmp_path_factory.mktemp("export-inputs")
    folders = {name: home / name for name in ("shards", "vae", "dit", "evaluation")}
    measured = {"sampling": json.loads(EXPORT_SECTION)["sampling"]}
    sections = ({"seed": 0, "num_train_scenes": 4}, {"seed": 0}, {"seed": 0, "max_pairs": 2}, measured)
    for folder, section in zip(folders.values(), sections, strict=True):
        folder.mkdir()
        write_json(folder / "config.json", section)
    generator = torch.Generator().manual_seed(0)
    vae, dit = STVae(VAE_PRESETS["tiny"]), JDit(DIT_PRESETS["tiny"])
    vae.initialise(generator)
    dit.initialise(generator)
    with torch.no_grad():
        for weight in (*vae.parameters(), *dit.parameters()):
            if not weight.any():
                weight.normal_(std=0.4, generator=generator)
    save_vae(folders["vae"], TrainedVae(vae, LatentStatistics(shift=0.1, scale=1.2), resolution=32))
    save_dit(folders["dit"], dit)

    pictures = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 2, 32, 32, 3), np.uint8)
    for split, by_task in zip(SPLITS, pictures, strict=True):
        with ShardWriter(folders["shards"], split, 2**20) as writer:
            for number, pairs in enumerate(by_task.swapaxes(0, 1)):
                by_name = zip(("denoising", "semantic"), pairs, strict=True)
                writer.add(f"{split}-{number}", {task: ImagePair(*pair) for task, pair in by_name})
    write_manifest(folders["shards"], resolution=32, clip_frames=1)

    scores = {answer: {"psnr": value} for answer, value in (("model", 21.5), ("query_unchanged", 18.25), ("context_mean", None))}
    denoising = {"metric": "psnr", "better": "higher", "beats_baselines": True, **scores}
    write_json(folders["evaluation"] / "metrics.json", {"tasks": {"denoising": denoising}, "tasks_beating_baselines": 1, "num_tasks": 1})
    return folders


@pytest.fixture(scope="session")
def export_section() -> str:
    """The section of `exported_bundle`, as JSON."""
    return EXPORT_SECTION


@pytest.fixture(scope="session")
def exported_bundle(export_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `export_inputs`, exported once (it takes seconds): read it, copy it, leave it as it is."""
    from components.export import run
    from lavin_dit.config import section_from_json

    bundle = tmp_path_factory.mktemp("exported") / "bundle"
    run(section_from_json("export", EXPORT_SECTION), export_inputs, {"bundle": bundle})
    return bundle


def _gradient(number: int, side: int = 16) -> NDArray[np.uint8]:
    """A smooth picture of its own for every number."""
    corners = np.random.default_rng(number).integers(0, 256, (2, 2, 3))
    weights = np.linspace(0.0, 1.0, side)
    rows = (1 - weights)[:, None, None] * corners[0] + weights[:, None, None] * corners[1]
    return ((1 - weights)[None, :, None] * rows[:, :1] + weights[None, :, None] * rows[:, 1:]).round().astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two tasks over the same smooth 16 px pictures: `invert` and `mirror`; 8 training and 3 held-out scenes."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    for split, numbers in (("train", range(8)), ("test", range(8, 11))):
        with ShardWriter(folder, split, 1 << 20) as writer:
            for number in numbers:
                picture = _gradient(number)
                targets = {"invert": 255 - picture, "mirror": np.ascontiguousarray(picture[:, ::-1])}
                writer.add(str(number), {task: ImagePair(picture, target) for task, target in targets.items()})
    write_manifest(folder, resolution=16, clip_frames=1)
    return folder
