"""Step: writes the ONNX bundle, and lets it appear only once ONNX Runtime answers from it as torch does."""

import json
import logging
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import lavin_dit
from components.code_version import git_commit, source_hash
from components.entry import StepFailedError
from components.folders import atomic_folder, read_json, write_json, write_text
from components.pod_environment import IMAGE_VARIABLE, RUN_VARIABLE
from components.steps import STEP_OF_OUTPUT
from lavin_dit.config import ExportConfig
from lavin_dit.data.shards.shard_set import MANIFEST_NAME, ShardSet
from lavin_dit.errors import InputError
from lavin_dit.export.bundle import Model, gather_facts, list_files, pick_contexts, render_card, write_contexts, write_table
from lavin_dit.export.format import CARD_FILE, FACTS_FILE, GRAPHS
from lavin_dit.export.graphs import export_graph, graphs_of
from lavin_dit.export.integrity import CHECKSUMS_NAME, write_checksums
from lavin_dit.export.parity import measure_parity, pick_questions
from lavin_dit.export.runtime import Bundle
from lavin_dit.hashing import file_sha256
from lavin_dit.progress import Progress
from lavin_dit.weights import WEIGHTS_FILE, load_dit, load_vae, num_parameters

logger = logging.getLogger(__name__)

INPUTS = ("shards", "vae", "dit", "evaluation")
OUTPUTS = ("bundle",)

CONFIG_FILE = "config.json"
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


def run(config: ExportConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Exports, checks, and describes; equal inputs give equal bytes.

    Raises: StepFailedError where the bundle does not answer as torch does; InputError where an input does not fit.
    """
    model = Model(load_vae(inputs["vae"]), load_dit(inputs["dit"]), config.sampling)
    metrics, lineage = read_json(inputs["evaluation"] / "metrics.json"), gather_lineage(config, inputs)
    with (
        ShardSet(inputs["shards"], "train") as train,
        ShardSet(inputs["shards"], "test") as test,
        # A key of its own: what a killed export left is not worth continuing.
        atomic_folder(outputs["bundle"], key=uuid4().hex) as folder,
    ):
        _check_resolution(model, train, inputs)
        _compare_sampling(config, lineage)
        contexts = pick_contexts(train, num_pairs=config.sampling.num_pairs, seed=config.seed)
        questions = pick_questions(test, contexts, count=config.parity_queries)
        with Progress("export", len(GRAPHS) + len(questions)) as progress:
            for graph in graphs_of(model.vae, model.dit):
                export_graph(graph, folder)
                progress.advance(note=graph.name)
            write_table(folder, model)
            write_contexts(folder, contexts)
            facts = gather_facts(model, contexts, metrics=metrics, lineage=lineage)
            write_json(folder / FACTS_FILE, facts)
            error = measure_parity(Bundle.open(folder, verify=False), model, questions, seed=config.seed, progress=progress)
        parity = judge_parity(error, max_relative_error=config.max_relative_error, num_queries=len(questions))
        _finish(folder, config, model, {**facts, "parity": parity})


def _check_resolution(model: Model, shards: ShardSet, inputs: Mapping[str, Path]) -> None:
    if model.vae.resolution != shards.resolution:
        raise InputError(
            f"{inputs['shards']}: holds images of {shards.resolution} pixels a side, but the ST-VAE in {inputs['vae']} was trained "
            f"at {model.vae.resolution}: train it on these shards"
        )


def _compare_sampling(config: ExportConfig, lineage: Mapping[str, Any]) -> None:
    measured, exported = lineage["parameters"]["evaluate"]["sampling"], config.sampling.model_dump(mode="json")
    if measured != exported:
        shown = (json.dumps(sampling, sort_keys=True) for sampling in (exported, measured))
        logger.warning("export: export.sampling is %s, but the metrics were measured with evaluate.sampling %s", *shown)


def judge_parity(error: float, *, max_relative_error: float, num_queries: int) -> dict[str, Any]:
    """What bundle.json says of the comparison.

    Raises: StepFailedError where the error is too large, or NaN.
    """
    if not error <= max_relative_error:
        raise StepFailedError(
            f"export: ONNX Runtime's answers are off from torch's by {error:.2g} relatively on {num_queries} held-out queries: "
            f"export.max_relative_error allows {max_relative_error:.2g}, so no bundle was written"
        )
    logger.info("export: relative error %.2g on %d held-out queries (at most %.2g)", error, num_queries, max_relative_error)
    return {"relative_error": error, "max_relative_error": max_relative_error, "passed": True, "queries": num_queries}


def gather_lineage(config: ExportConfig, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """All that made the bundle: code, data, weights, parameters, libraries."""
    parameters = {STEP_OF_OUTPUT[name]: read_json(folder / CONFIG_FILE) for name, folder in inputs.items()}
    return {
        "package_version": lavin_dit.__version__,
        "git_commit": git_commit(),
        "source_sha256": source_hash(),
        "data_manifest_sha256": file_sha256(inputs["shards"] / MANIFEST_NAME),
        "weights_sha256": {name: file_sha256(inputs[name] / WEIGHTS_FILE) for name in ("vae", "dit")},
        "parameters": {**parameters, "export": config.model_dump(mode="json")},
        "libraries": {name: version(name) for name in LIBRARIES},
        "image": os.environ.get(IMAGE_VARIABLE),
        "run_id": os.environ.get(RUN_VARIABLE),
    }


def _finish(folder: Path, config: ExportConfig, model: Model, facts: Mapping[str, Any]) -> None:
    sizes = {"vae": num_parameters(model.vae.module), "dit": num_parameters(model.dit)}
    write_text(folder / CARD_FILE, render_card(facts, num_parameters=sizes))
    write_json(folder / CONFIG_FILE, config.model_dump(mode="json"))
    write_json(folder / FACTS_FILE, {**facts, "files": [*list_files(folder), CHECKSUMS_NAME]})
    write_checksums(folder)
