"""Compiles the pipeline for one image."""

import tempfile
from pathlib import Path
from typing import Any

import yaml


def pipeline_document(image: str) -> dict[str, Any]:
    """The pipeline's intermediate representation, with every step in `image`."""
    # kfp takes seconds to import, and most commands do without it.
    from kfp.compiler import Compiler

    from pipelines.dag import lavin

    with tempfile.TemporaryDirectory(prefix="lavin-") as folder:
        file = Path(folder) / "pipeline.yaml"
        Compiler().compile(lavin, str(file))
        document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    for executor in document["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = image
    return document


def pipeline_text(image: str) -> str:
    """The same as YAML, as `lavin compile` writes it and `lavin run` runs it."""
    return yaml.safe_dump(pipeline_document(image), sort_keys=False)


def compile_pipeline(image: str, out: Path) -> None:
    """Writes the pipeline as YAML, ready for a KFP server."""
    text = pipeline_text(image)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
