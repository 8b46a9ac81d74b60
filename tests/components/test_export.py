import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lavin_dit
from components import export
from components.entry import StepFailedError
from components.export import INPUTS, OUTPUTS, judge_parity, run
from components.folders import partial_of
from lavin_dit.config import ExportConfig, section_from_json
from lavin_dit.errors import InputError
from lavin_dit.export.format import graph_file
from lavin_dit.export.graphs import Graph
from lavin_dit.export.integrity import verify_checksums
from lavin_dit.hashing import file_sha256

STARTS_WITHIN_S = 60
KILLED_WITHIN_S = 6
EXPORT = """
import sys
from pathlib import Path
from lavin_dit.config import section_from_json
from components.export import INPUTS, run
section, bundle, *inputs = sys.argv[1:]
run(section_from_json("export", section), dict(zip(INPUTS, map(Path, inputs))), {"bundle": Path(bundle)})
"""


@pytest.fixture
def config(export_section: str) -> ExportConfig:
    section = section_from_json("export", export_section)
    assert isinstance(section, ExportConfig)
    return section


@pytest.fixture
def quick(exported_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the graphs of the bundle that was really exported, for tests of what comes after them."""

    def copy(graph: Graph, folder: Path) -> None:
        shutil.copy(exported_bundle / graph_file(graph.name), folder)

    monkeypatch.setattr(export, "export_graph", copy)


def test_the_bundle_holds_its_files_and_their_hashes(exported_bundle: Path) -> None:
    verify_checksums(exported_bundle)
    files = sorted(path.relative_to(exported_bundle).as_posix() for path in exported_bundle.rglob("*") if path.is_file())
    assert files == [
        "SHA256SUMS",
        "bundle.json",
        "config.json",
        "contexts/denoising.npz",
        "contexts/semantic.npz",
        "dit_velocity.onnx",
        "model_card.md",
        "modulation.npz",
        "vae_decoder.onnx",
        "vae_encoder.onnx",
    ]
    assert sorted(json.loads((exported_bundle / "bundle.json").read_text())["files"]) == files


def test_the_bundle_says_what_made_it(exported_bundle: Path, export_inputs: dict[str, Path], config: ExportConfig) -> None:
    facts = json.loads((exported_bundle / "bundle.json").read_text())
    lineage = facts["lineage"]
    assert lineage["package_version"] == lavin_dit.__version__
    assert lineage["data_manifest_sha256"] == file_sha256(export_inputs["shards"] / "manifest.json")
    assert lineage["weights_sha256"]["dit"] == file_sha256(export_inputs["dit"] / "weights.safetensors")
    assert lineage["parameters"]["export"] == config.model_dump(mode="json")
    assert lineage["parameters"]["train_dit"] == {"seed": 0, "max_pairs": 2}
    assert facts["parity"]["queries"] == config.parity_queries
    assert facts["parity"]["passed"] is True
    assert 0 < facts["parity"]["relative_error"] < facts["parity"]["max_relative_error"]


def test_killed_in_the_middle_it_ends_right_when_run_again(
    exported_bundle: Path, export_inputs: dict[str, Path], export_section: str, config: ExportConfig, tmp_path: Path
) -> None:
    bundle = tmp_path / "outputs" / "bundle"
    command = [sys.executable, "-c", EXPORT, export_section, str(bundle), *(str(export_inputs[name]) for name in INPUTS)]
    with subprocess.Popen(command) as process:
        wait_until(lambda: partial_of(bundle).exists() or process.poll() is not None)
        assert process.poll() is None
        time.sleep(random.uniform(0, KILLED_WITHIN_S))  # noqa: S311 - any moment will do
        process.send_signal(signal.SIGKILL)
    assert not bundle.exists() or process.returncode == 0
    if partial_of(bundle).exists():
        (partial_of(bundle) / "half_written.onnx").write_bytes(b"half")

    run(config, {name: export_inputs[name] for name in INPUTS}, {OUTPUTS[0]: bundle})
    # Equal inputs give equal bytes, in another process and after a kill too.
    assert (bundle / "SHA256SUMS").read_text() == (exported_bundle / "SHA256SUMS").read_text()
    verify_checksums(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + STARTS_WITHIN_S
    while not is_so():
        assert time.monotonic() < end, "the export did not start"
        time.sleep(0.05)


@pytest.mark.usefixtures("quick")
def test_no_bundle_appears_where_onnx_differs_from_torch(export_inputs: dict[str, Path], config: ExportConfig, tmp_path: Path) -> None:
    strict = config.model_copy(update={"max_relative_error": 1e-12})
    with pytest.raises(StepFailedError, match=r"off from torch's by .* on 3 held-out queries: export.max_relative_error allows 1e-12"):
        run(strict, export_inputs, {"bundle": tmp_path / "bundle"})
    assert not (tmp_path / "bundle").exists()
    run(config, export_inputs, {"bundle": tmp_path / "bundle"})
    verify_checksums(tmp_path / "bundle")


@pytest.mark.usefixtures("quick")
def test_another_bundle_takes_the_place_of_an_older_one(export_inputs: dict[str, Path], config: ExportConfig, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "stale.onnx").write_bytes(b"old")
    run(config.model_copy(update={"parity_queries": 1}), export_inputs, {"bundle": tmp_path / "bundle"})
    verify_checksums(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "stale.onnx").exists()


@pytest.mark.usefixtures("quick")
def test_metrics_that_were_measured_with_another_sampling_are_told(
    export_inputs: dict[str, Path], config: ExportConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(config, export_inputs, {"bundle": tmp_path / "same"})
    assert "evaluate.sampling" not in caplog.text
    shorter = config.model_copy(update={"sampling": config.sampling.model_copy(update={"num_points": 3})})
    run(shorter, export_inputs, {"bundle": tmp_path / "other"})
    assert 'the metrics were measured with evaluate.sampling {"guidance_scale": 1.5, "num_pairs": 2, "num_points": 4}' in caplog.text


@pytest.mark.parametrize("error", [1.1e-3, float("nan"), float("inf")])
def test_a_large_or_undefined_error_fails_the_step(error: float) -> None:
    with pytest.raises(StepFailedError):
        judge_parity(error, max_relative_error=1e-3, num_queries=1)


def test_inputs_that_do_not_belong_together_are_refused(export_inputs: dict[str, Path], config: ExportConfig, tmp_path: Path) -> None:
    vae = shutil.copytree(export_inputs["vae"], tmp_path / "vae")
    facts = json.loads((vae / "model.json").read_text())
    (vae / "model.json").write_text(json.dumps(facts | {"resolution": 64}))
    with pytest.raises(InputError, match=r"holds images of 32 pixels a side, but the ST-VAE in .* was trained at 64"):
        run(config, {**export_inputs, "vae": vae}, {"bundle": tmp_path / "bundle"})
    with pytest.raises(InputError, match=r"metrics\.json: cannot be read"):
        run(config, {**export_inputs, "evaluation": tmp_path}, {"bundle": tmp_path / "bundle"})
    assert not (tmp_path / "bundle").exists()
