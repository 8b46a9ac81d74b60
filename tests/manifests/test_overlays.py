"""What an overlay consists of: names, labels, images, settings; and that it is the same every time."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components.launcher.settings import load_platform
from components.pod_environment import VOLUME
from pipelines.placement import LAUNCHER_CONFIG, SETTING_NAMES, SETTINGS

MANIFESTS = Path(__file__).parents[2] / "manifests"
PART_OF = {"app.kubernetes.io/part-of": "lavin"}
CLUSTER_SCOPED = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "ClusterTrainingRuntime"}
RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}{suffix}": value
    for mode in ("enforce", "audit", "warn")
    for suffix, value in (("", "restricted"), ("-version", "v1.34"))
}
LOOKS_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|[a-z]+://[^/\s:]+:[^/\s@]+@|(?:password|secret_?key|(?<!ServiceAccount)token)\s*[:=]\s*\S",
    re.IGNORECASE,
)


def test_an_overlay_is_rendered_the_same_from_any_folder(overlay, render, tmp_path):
    shutil.copytree(MANIFESTS, tmp_path / "elsewhere")
    assert render(tmp_path / "elsewhere" / "overlays" / overlay.name) == overlay.text


def test_every_object_is_labelled_as_ours(overlay):
    assert [item["metadata"]["name"] for item in overlay.objects if PART_OF.items() - item["metadata"]["labels"].items()] == []


def test_every_object_lies_in_the_overlays_namespace_or_in_none(overlay):
    for item in overlay.objects:
        expected = None if item["kind"] in CLUSTER_SCOPED else overlay.namespace
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]


def test_no_object_is_there_twice(overlay):
    names = [(item["kind"], item["metadata"]["name"]) for item in overlay.objects]
    assert len(set(names)) == len(names)


def test_names_are_those_that_steps_and_launcher_use(overlay):
    assert set(overlay.of("ServiceAccount")) == {"lavin-pipeline", "lavin-training"}
    assert set(overlay.of("PersistentVolumeClaim")) == {VOLUME}
    assert set(overlay.of("ConfigMap")) == {LAUNCHER_CONFIG, SETTINGS}
    assert set(overlay.of("ClusterTrainingRuntime")) == {"lavin-torch"}
    assert set(overlay.of("ConfigMap")[SETTINGS]["data"]) == set(SETTING_NAMES)
    assert set(overlay.launcher_files()) == {"launcher.yaml", "pytorchjob.yaml", "pytorchjob-elastic.yaml", "trainjob.yaml"}


def test_the_namespace_comes_first_and_is_restricted(overlay):
    if overlay.name == "standalone":
        assert overlay.of("Namespace") == {}
        return
    first = overlay.objects[0]
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", "lavin")
    assert first["metadata"]["labels"] == PART_OF | RESTRICTED


def test_the_launchers_settings_fit_its_schema(overlay, launcher_folder):
    platform = load_platform(launcher_folder)
    assert "cpu" in platform.accelerators
    assert platform.queue in {"", *overlay.of("LocalQueue")}


def test_gpus_and_the_queue_are_for_prod_alone(overlay, launcher_folder):
    accelerators = load_platform(launcher_folder).accelerators
    gpus = {name for name, accelerator in accelerators.items() if accelerator.resource == "nvidia.com/gpu"}
    production = overlay.name == "prod"
    assert gpus == ({"h100", "h200", "a100"} if production else set())
    assert all(accelerators[name].node_selector and accelerators[name].tolerations and accelerators[name].memory_gib for name in gpus)
    for kind in ("LocalQueue", "ResourceQuota", "LimitRange", "PodDisruptionBudget"):
        assert bool(overlay.of(kind)) == production, kind


def test_the_volume_is_shared_by_several_nodes_in_prod_alone(overlay):
    modes = overlay.of("PersistentVolumeClaim")[VOLUME]["spec"]["accessModes"]
    assert modes == (["ReadWriteMany"] if overlay.name == "prod" else ["ReadWriteOnce"])


def test_every_image_has_a_tag_or_a_digest_that_does_not_move(overlay, pod_templates):
    images = [
        container["image"] for item in overlay.objects for template in pod_templates(item) for container in template.spec["containers"]
    ]
    assert images
    for image in images:
        assert re.search(r"@sha256:[0-9a-f]{64}$|:(?!latest$)[\w.-]+$", image), image
        assert "/lavin-pipelines" in image


def test_a_quota_leaves_no_container_without_a_size(prod):
    limits = {limit["type"]: limit for limit in prod.of("LimitRange")["lavin"]["spec"]["limits"]}
    hard = prod.of("ResourceQuota")["lavin"]["spec"]["hard"]
    for name in ("cpu", "memory"):
        assert f"requests.{name}" not in hard or name in limits["Container"]["defaultRequest"]
        assert f"limits.{name}" not in hard or name in limits["Container"]["default"]
    assert "cpu" not in limits["Container"]["default"], "a throttled rank slows all of them"


def test_ranks_are_not_evicted_and_their_priority_preempts_nobody(prod):
    budget = prod.of("PodDisruptionBudget")["lavin-ranks"]["spec"]
    assert budget["selector"]["matchLabels"] == {"lavin.dev/role": "rank"}
    assert isinstance(budget["minAvailable"], int), "only a number is counted without the owner's scale"
    assert prod.of("PriorityClass")["lavin-training"]["preemptionPolicy"] == "Never"


def test_nothing_is_secret(overlay):
    assert overlay.of("Secret") == {}
    assert LOOKS_SECRET.findall(overlay.text) == []


@pytest.mark.parametrize("text", ["aws: AKIAABCDEFGHIJKLMNOP", "url: https://me:hunter2@git.example.com/x", "password: hunter2"])
def test_a_secret_would_be_seen(text):
    assert LOOKS_SECRET.search(text)


def test_standalone_can_stand_beside_another_overlay_on_one_cluster(standalone, prod):
    def cluster_wide(overlay):
        return {(item["kind"], item["metadata"]["name"]): item for item in overlay.objects if item["kind"] in CLUSTER_SCOPED}

    ours, theirs = cluster_wide(standalone), cluster_wide(prod)
    differing = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    # The runtime's image is replaced by every job's.
    assert differing <= {("ClusterTrainingRuntime", "lavin-torch")}


def test_the_operators_init_container_can_be_hardened(render, pod_templates):
    (config,) = yaml.safe_load_all(render(MANIFESTS / "training-operator"))
    patch = yaml.safe_load((MANIFESTS / "training-operator" / "deployment-patch.yaml").read_text())
    pod = patch["spec"]["template"]["spec"]
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    assert pod["containers"][0]["volumeMounts"][0] == {"name": pod["volumes"][0]["name"], "mountPath": "/etc/config", "readOnly": True}
    assert list(config["data"]) == ["initContainer.yaml"]


def set_up(prod, workspace):
    """Carries out what the Job does, on a folder here."""
    (container,) = prod.of("Job")["workspace-setup"]["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("/workspace", str(workspace))
    return subprocess.run([*container["command"], script], capture_output=True, text=True, check=False)


def test_the_volume_is_made_writable_for_the_group_as_often_as_asked(prod, tmp_path):
    for _ in range(2):
        assert set_up(prod, tmp_path).returncode == 0
    assert {folder.name: oct(folder.stat().st_mode)[-4:] for folder in tmp_path.iterdir()} == dict.fromkeys(
        ("store", "data", "runs"), "2775"
    )


def test_a_volume_that_cannot_be_made_ready_says_whom_it_belongs_to(prod, tmp_path):
    (tmp_path / "store").write_text("in the way")
    done = set_up(prod, tmp_path)
    assert done.returncode == 1
    assert "make it writable for 10001:10001" in done.stdout
