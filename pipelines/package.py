"""A compiled pipeline as others see it: a file, what a server keeps of a version, or what a run carries along."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lavin_dit.errors import InputError


@dataclass(frozen=True)
class Package:
    """What runs, and what only Kubernetes reads ({} where there is nothing)."""

    pipeline: dict[str, Any]
    platform: dict[str, Any]

    @classmethod
    def from_text(cls, text: str, source: str) -> "Package":
        """Raises: InputError where the text of `source` is no compiled pipeline."""
        try:
            documents = [document for document in yaml.safe_load_all(text) if document is not None]
        except yaml.YAMLError:
            documents = []
        if len(documents) in (1, 2) and all(isinstance(document, dict) for document in documents):
            pipeline, platform = [*documents, {}][:2]
            if _is_pipeline(pipeline) and (not platform or "platforms" in platform):
                return cls(pipeline, platform)
        raise InputError(f"{source}: must hold a compiled pipeline, as `lavin compile` writes it")

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> "Package":
        """From the object that a server gives and takes."""
        return cls(spec.get("pipeline_spec", spec), spec.get("platform_spec", {}))

    def spec(self) -> dict[str, Any]:
        """As the object that a server gives and takes."""
        return {"pipeline_spec": self.pipeline, "platform_spec": self.platform} if self.platform else self.pipeline

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.pipeline["pipelineInfo"]["name"])

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The declaration of each parameter."""
        found: dict[str, dict[str, Any]] = self.pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
        return found

    @property
    def images(self) -> list[str]:
        """Every image that a step runs in."""
        executors = self.pipeline.get("deploymentSpec", {}).get("executors", {}).values()
        return sorted({executor["container"]["image"] for executor in executors if "container" in executor})

    def steps(self) -> dict[str, bool]:
        """The tasks that are steps, wherever they are nested, and whether KFP may take each from its cache."""
        components = self.pipeline.get("components", {})
        return {
            name: bool(task.get("cachingOptions", {}).get("enableCache"))
            for name, task in _tasks(self.pipeline)
            if "dag" not in components.get(task["componentRef"]["name"], {})
        }

    def without_cache(self) -> "Package":
        """The same, with every step to be run. kfp's client does so for tasks of the outermost level only, where this pipeline has none."""
        pipeline = copy.deepcopy(self.pipeline)
        for _, task in _tasks(pipeline):
            task["cachingOptions"] = {}
        return Package(pipeline, self.platform)


def read_package(file: Path) -> tuple[str, Package]:
    """A compiled pipeline's text as it is, and what it says.

    Raises: InputError where the file is absent, or is no compiled pipeline.
    """
    try:
        # Bytes are kept: text mode would turn one kind of line break into another.
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: must be a readable file with a compiled pipeline; `lavin compile` writes one") from None
    return text, Package.from_text(text, str(file))


def _is_pipeline(document: dict[str, Any]) -> bool:
    return (
        isinstance(document.get("root"), dict)
        and isinstance(document.get("pipelineInfo"), dict)
        and bool(document["pipelineInfo"].get("name"))
    )


def _tasks(pipeline: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for component in [pipeline["root"], *pipeline.get("components", {}).values()]:
        yield from component.get("dag", {}).get("tasks", {}).items()
