import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavin_dit.config import SamplingConfig
from lavin_dit.errors import InputError
from lavin_dit.export.integrity import write_checksums
from lavin_dit.export.runtime import Bundle
from lavin_dit.inference import predict, to_model, to_pixels
from lavin_dit.sampling import starting_noise
from lavin_dit.weights import load_dit, load_vae

Pixels = NDArray[np.uint8]

FORBIDDEN = ("torch", "PIL", "pydantic", "yaml", "rich", "scipy", "skimage", "einops", "onnx", "safetensors", "typer")
WITHOUT_THE_REST = f"""
import sys
for name in {FORBIDDEN}:
    sys.modules[name] = None
from hashlib import sha256
from pathlib import Path
import numpy as np
from lavin_dit.export.runtime import Bundle
bundle = Bundle.open(Path(sys.argv[1]), num_threads=1)
context = bundle.contexts("denoising")
answer = bundle.predict(context.inputs[:1], context.inputs[None], context.targets[None], seed=5)
print(sha256(answer.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def bundle(exported_bundle: Path) -> Bundle:
    return Bundle.open(exported_bundle, num_threads=1)


def pictures(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def stack(images: Pixels) -> Tensor:
    flat = torch.stack([to_model(image) for image in images.reshape(-1, *images.shape[-3:])])
    return flat.reshape(*images.shape[:-3], *flat.shape[1:])


@pytest.mark.parametrize(
    ("batch", "num_pairs", "height", "width", "guidance_scale"), [(1, 1, 32, 32, 1.0), (3, 2, 32, 32, 1.5), (2, 4, 16, 48, 2.0)]
)
def test_answers_equal_those_of_torch(
    bundle: Bundle, export_inputs: dict[str, Path], batch: int, num_pairs: int, height: int, width: int, guidance_scale: float
) -> None:
    queries, inputs, targets = (pictures(*shape, height, width) for shape in ((batch,), (batch, num_pairs), (batch, num_pairs)))
    noise = np.stack([starting_noise((16, 1, height // 8, width // 8), seed=7, index=index) for index in range(batch)])
    reference = predict(
        load_vae(export_inputs["vae"]),
        load_dit(export_inputs["dit"]),
        context_inputs=stack(inputs)[..., None, :, :],
        context_targets=stack(targets)[..., None, :, :],
        queries=stack(queries)[..., None, :, :],
        noise=torch.from_numpy(noise),
        sampling=SamplingConfig(num_points=4, guidance_scale=guidance_scale, num_pairs=num_pairs),
    )[:, :, 0]
    answer = bundle.predict_unrounded(queries, inputs, targets, seed=7, guidance_scale=guidance_scale)
    assert np.linalg.norm(answer - reference.numpy()) <= 1e-4 * np.linalg.norm(reference.numpy())
    rounded = bundle.predict(queries, inputs, targets, seed=7, guidance_scale=guidance_scale)
    assert rounded.dtype == np.uint8
    assert np.abs(rounded.astype(int) - np.stack([to_pixels(image) for image in reference])).max() <= 1


def test_what_is_not_given_is_the_bundles_own(bundle: Bundle) -> None:
    queries, inputs, targets = pictures(1, 32, 32), pictures(1, 2, 32, 32, seed=1), pictures(1, 2, 32, 32, seed=2)
    answer = bundle.predict(queries, inputs, targets)
    assert np.array_equal(answer, bundle.predict(queries, inputs, targets, seed=0, num_points=4, guidance_scale=1.5))
    assert not np.array_equal(answer, bundle.predict(queries, inputs, targets, guidance_scale=1.0))


def test_an_answer_depends_on_its_number_and_not_on_the_batch(bundle: Bundle) -> None:
    queries, inputs, targets = pictures(3, 32, 32), pictures(3, 2, 32, 32, seed=1), pictures(3, 2, 32, 32, seed=2)
    together = bundle.predict_unrounded(queries, inputs, targets)
    alone = bundle.predict_unrounded(queries[2:], inputs[2:], targets[2:], first_index=2)
    np.testing.assert_allclose(alone[0], together[2], atol=1e-4)
    assert np.abs(bundle.predict_unrounded(queries[2:], inputs[2:], targets[2:], first_index=0) - alone).max() > 1e-2
    assert np.abs(bundle.predict_unrounded(queries[2:], inputs[2:], targets[2:], first_index=2, seed=1) - alone).max() > 1e-2


def test_one_context_serves_every_query(bundle: Bundle) -> None:
    queries, inputs, targets = pictures(3, 32, 32), pictures(1, 2, 32, 32, seed=1), pictures(1, 2, 32, 32, seed=2)
    shared = bundle.predict_unrounded(queries, inputs, targets)
    repeated = bundle.predict_unrounded(queries, inputs.repeat(3, axis=0), targets.repeat(3, axis=0))
    np.testing.assert_allclose(shared, repeated, atol=1e-4)


def test_the_order_of_inputs_and_targets_matters(bundle: Bundle) -> None:
    queries, inputs, targets = pictures(1, 32, 32), pictures(1, 2, 32, 32, seed=1), pictures(1, 2, 32, 32, seed=2)
    swapped = bundle.predict_unrounded(queries, targets, inputs)
    assert np.abs(bundle.predict_unrounded(queries, inputs, targets) - swapped).max() > 1e-2


def test_tasks_come_with_their_facts_and_example_pairs(bundle: Bundle) -> None:
    assert {name: (task.title, task.kind, task.nearest.targets) for name, task in bundle.tasks.items()} == {
        "denoising": ("Denoising", "image", False),
        "semantic": ("Semantic segmentation", "labels", True),
    }
    context = bundle.contexts("semantic")
    assert context.inputs.shape == context.targets.shape == (bundle.num_pairs, bundle.resolution, bundle.resolution, 3)
    assert context.inputs.dtype == np.uint8


def test_an_unknown_task_lists_the_known_ones(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"task 'pose': .* for denoising, semantic"):
        bundle.contexts("pose")


QUERIES, PAIRS = pictures(2, 32, 32), pictures(2, 2, 32, 32)


@pytest.mark.parametrize(
    ("queries", "inputs", "targets", "message"),
    [
        (QUERIES.astype(np.float32), PAIRS, PAIRS, "queries are float32: must be an array of uint8"),
        (QUERIES.tolist(), PAIRS, PAIRS, "queries are list"),
        (QUERIES[0], PAIRS, PAIRS, r"queries have the shape \(32, 32, 3\): must be \(b, h, w, 3\)"),
        (QUERIES[:0], PAIRS, PAIRS, "none of them 0"),
        (QUERIES, PAIRS[:, :0], PAIRS[:, :0], "context_inputs have the shape .* none of them 0"),
        (QUERIES[..., :1], PAIRS, PAIRS, r"queries have the shape \(2, 32, 32, 1\)"),
        (pictures(2, 32, 30), PAIRS, PAIRS, "queries are 32x30 pixels: height and width must be multiples of 16"),
        (QUERIES, PAIRS[0], PAIRS, r"context_inputs .* must be \(b, n, h, w, 3\)"),
        (QUERIES, PAIRS, PAIRS[:, :1], r"context_targets .* must be that of context_inputs, \(2, 2, 32, 32, 3\)"),
        (pictures(2, 16, 32), PAIRS, PAIRS, r"as large as the queries, \(16, 32\)"),
        (pictures(3, 32, 32), PAIRS, PAIRS, "context_inputs are for 2 queries: must be for 1 .* or 3"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(bundle: Bundle, queries: Pixels, inputs: Pixels, targets: Pixels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bundle.predict(queries, inputs, targets)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_points": 20}, "num_points is 20: this bundle holds the modulations of its own 4-point time grid only"),
        ({"guidance_scale": 0.0}, "guidance_scale is 0: must be above 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"seed": -1}, "seed is -1: must be from 0"),
        ({"first_index": 2**32}, "first_index is 4294967296"),
    ],
)
def test_settings_that_cannot_be_are_refused(bundle: Bundle, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bundle.predict(QUERIES, PAIRS, PAIRS, **settings)


def test_a_bundle_that_was_tampered_with_is_refused(exported_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(exported_bundle, tmp_path / "bundle")
    with (copy / "dit_velocity.onnx").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(InputError, match=r"dit_velocity\.onnx: has changed"):
        Bundle.open(copy)
    assert Bundle.open(copy, verify=False).resolution == 32


def test_no_bundle_and_another_format_are_refused(exported_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a bundle, it holds no bundle\.json"):
        Bundle.open(tmp_path)
    with pytest.raises(InputError, match="num_threads is -1"):
        Bundle.open(exported_bundle, num_threads=-1)
    for text, message in ((json.dumps({"format": 2}), "is of format 2, this runtime reads format 1"), ("{", "cannot be read as")):
        (tmp_path / "bundle.json").write_text(text)
        write_checksums(tmp_path)
        with pytest.raises(InputError, match=message):
            Bundle.open(tmp_path)


def test_the_runtime_needs_neither_torch_nor_anything_but_numpy_and_onnxruntime(exported_bundle: Path, bundle: Bundle) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_THE_REST, str(exported_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    context = bundle.contexts("denoising")
    answer = bundle.predict(context.inputs[:1], context.inputs[None], context.targets[None], seed=5)
    assert done.stdout.strip() == hashlib.sha256(answer.tobytes()).hexdigest()
