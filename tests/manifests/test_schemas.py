"""Every object as its API server would judge it: known fields only, right types, closed custom resources."""

import copy
from functools import cache

import jsonschema
import kubernetes_validate
import pytest
import yaml

KUBERNETES = "1.34"
CUSTOM = {
    "ClusterTrainingRuntime": "clustertrainingruntimes.trainer.kubeflow.org.yaml",
    "PyTorchJob": "pytorchjobs.kubeflow.org.yaml",
    "TrainJob": "trainjobs.trainer.kubeflow.org.yaml",
}


def closed(schema):
    """A custom resource's schema that refuses what it does not list, and takes quantities for what they are."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("anyOf", None)
        result["type"] = ["integer", "string"]
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        result.setdefault("additionalProperties", False)
    return result


@cache
def validator(file, api_version):
    """What judges a custom resource of one version."""
    definition = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]
    group, version = api_version.split("/")
    assert definition["group"] == group
    (served,) = [entry for entry in definition["versions"] if entry["name"] == version]
    schema = closed(served["schema"]["openAPIV3Schema"])
    # The API server checks this part itself.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def check(item, schemas):
    """Raises the validator's error where an object does not fit."""
    if item["kind"] in CUSTOM:
        validator(schemas / CUSTOM[item["kind"]], item["apiVersion"]).validate(item)
    elif item["kind"] == "LocalQueue":
        # Kueue 0.20 serves no other version.
        assert item["apiVersion"] == "kueue.x-k8s.io/v1beta2"
        assert item["spec"].keys() == {"clusterQueue"}
    else:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_every_object_fits_its_schema(overlay, schemas):
    assert overlay.objects
    for item in overlay.objects:
        check(item, schemas)


def test_every_shape_and_every_job_made_of_one_fits_its_schema(overlay, jobs, schemas):
    shapes = [yaml.safe_load(text) for name, text in overlay.launcher_files().items() if name != "launcher.yaml"]
    assert {item["kind"] for item in shapes} == {item["kind"] for item in jobs} == {"PyTorchJob", "TrainJob"}
    for item in [*shapes, *jobs]:
        check(item, schemas)


def test_a_job_lies_in_the_overlays_queue(overlay, jobs):
    for job in jobs:
        queue = job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
        assert queue in ({"lavin"} if overlay.of("LocalQueue") else {None})


@pytest.mark.parametrize("kind", ["Job", "NetworkPolicy", "Role", "PersistentVolumeClaim", "ClusterTrainingRuntime", "PodDisruptionBudget"])
def test_an_unknown_field_is_refused(prod, schemas, kind):
    item = copy.deepcopy(next(iter(prod.of(kind).values())))
    item.setdefault("spec", item)["surprise"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(item, schemas)


def test_metadata_is_known_by_name(prod, schemas):
    for item in prod.objects:
        assert item["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}
