"""CRD schemas with every object closed: the API server refuses or drops a field that it does not know."""

from pathlib import Path
from typing import Any

import jsonschema
import yaml

FILES = {
    "PyTorchJob": "pytorchjobs.kubeflow.org.yaml",
    "TrainJob": "trainjobs.trainer.kubeflow.org.yaml",
    "ClusterTrainingRuntime": "clustertrainingruntimes.trainer.kubeflow.org.yaml",
}
METADATA = {"name", "namespace", "labels", "annotations", "ownerReferences"}


class Closed:
    """The schemas, by kind."""

    def __init__(self, folder: Path) -> None:
        self._validators = {kind: _validator(folder / name) for kind, name in FILES.items()}

    def wrong(self, body: dict[str, Any]) -> str:
        """The first thing that is wrong with an object, or an empty text."""
        unknown = set(body["metadata"]) - METADATA
        errors = sorted(self._validators[body["kind"]].iter_errors(body), key=lambda error: -len(error.absolute_path))
        paths = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]
        return next(iter([*(f"metadata.{name}" for name in unknown), *paths]), "")


def _validator(path: Path) -> jsonschema.Draft202012Validator:
    # The same as safe_load, ten times as fast.
    document = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    _close(schema)
    # Its fields are every object's, and not in the schema.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for part in schema:
            _close(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)
