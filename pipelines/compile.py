"""Compiles the pipelines: for a cluster, with one image and one volume; and for this machine."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.launcher.settings import LAUNCHERS, load_platform
from components.pod_environment import IMAGE_VARIABLE, VOLUME, VOLUME_VARIABLE
from components.recipes import recipes
from components.run_request import MODEL_SIZES, STAGES
from lavin_dit.errors import InputError


class Compiled(NamedTuple):
    """The intermediate representation: what runs, and what only Kubernetes reads."""

    pipeline: dict[str, Any]
    platform: dict[str, Any]

    def text(self) -> str:
        """One YAML file with both documents, as a KFP server takes it."""
        return yaml.safe_dump_all([self.pipeline, self.platform], sort_keys=False, allow_unicode=True)


PIPELINES = {"lavin": "pipelines.dag", "study": "pipelines.study_dag"}
"""The module of each pipeline, in which a function of its name is the DAG."""


def compile_for(image: str, *, volume: str = VOLUME, platform: Path | None = None, pipeline: str = "lavin") -> Compiled:
    """A pipeline with every step in `image`, on `volume`, for the accelerators that the launcher.yaml in `platform` lists.

    Raises: InputError where the image has no name, launcher.yaml does not fit, or there is no such pipeline.
    """
    if not image.strip():
        raise InputError("--image: must name the image of the steps, best by digest")
    compiled = _compile(pipeline)
    for executor in compiled.pipeline["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = image
        environment = {IMAGE_VARIABLE: image, VOLUME_VARIABLE: volume}
        executor["container"]["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    for executor in compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        for mount in executor["pvcMount"]:
            mount["constant"] = volume
            mount["pvcNameParameter"]["runtimeValue"]["constant"] = volume
    _close(compiled.pipeline["root"]["inputDefinitions"]["parameters"], accelerators=list(load_platform(platform).accelerators))
    return compiled


def local_text(name: str = "lavin") -> str:
    """The same pipeline for this machine: no image, and nothing that it cannot give or would do again in vain."""
    pipeline = _compile(name).pipeline
    for executor in pipeline["deploymentSpec"]["executors"].values():
        executor["container"].pop("resources", None)
    for component in [pipeline["root"], *pipeline["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    return yaml.safe_dump(pipeline, sort_keys=False)


def compile_pipeline(image: str, out: Path, *, volume: str = VOLUME, platform: Path | None = None, pipeline: str = "lavin") -> None:
    """Writes a pipeline as YAML, ready for a KFP server; see `compile_for`."""
    text = compile_for(image, volume=volume, platform=platform, pipeline=pipeline).text()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


def _compile(name: str) -> Compiled:
    if name not in PIPELINES:
        raise InputError(f"--pipeline {name}: must be one of {', '.join(PIPELINES)}")
    # kfp takes seconds to import, and most commands do without it.
    from kfp.compiler import Compiler

    dag = getattr(import_module(PIPELINES[name]), name)
    with tempfile.TemporaryDirectory(prefix="lavin-") as folder:
        file = Path(folder) / "pipeline.yaml"
        Compiler().compile(dag, str(file))
        return Compiled(*yaml.safe_load_all(file.read_text(encoding="utf-8")))


def _close(parameters: Mapping[str, dict[str, Any]], *, accelerators: Sequence[str]) -> None:
    """Lists the values of closed parameters, which the UI then offers in a drop-down; and help without the docstring's line breaks."""
    for parameter in parameters.values():
        parameter["description"] = " ".join(parameter["description"].split())
    closed = {
        "recipe": sorted(recipes()),
        "model_size": MODEL_SIZES,
        "launcher": LAUNCHERS,
        "accelerator": accelerators,
        "stage": STAGES,
    }
    for name, values in closed.items():
        if name not in parameters:
            continue
        parameters[name]["literals"] = list(values)
        if parameters[name]["defaultValue"] not in values:
            parameters[name]["defaultValue"] = values[0]
