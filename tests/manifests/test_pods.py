"""The rules that every pod template keeps, wherever one is: in an object, in a shape of a job, in a runtime, in the operator's patch."""

import copy
from pathlib import Path

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
USER = 10001
ROLES = {"setup", "rank", "step"}


def breaches(template):
    """What a pod template does that it must not, in words."""
    pod, found = template.spec.get("securityContext", {}), []

    def rule(kept, words):
        if not kept:
            found.append(words)

    rule(pod.get("runAsNonRoot") is True, "may run as root")
    rule((pod.get("runAsUser"), pod.get("runAsGroup")) == (USER, USER), "is not 10001:10001")
    rule(pod.get("seccompProfile") == {"type": "RuntimeDefault"}, "is not confined by seccomp")
    rule(not any(template.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "shares the host")
    rule(template.spec.get("automountServiceAccountToken") is False, "mounts a token")
    rule(template.spec.get("serviceAccountName") == "lavin-training", "is not lavin-training")
    rule(template.labels.get("app.kubernetes.io/part-of") == "lavin", "is not labelled as ours")
    rule(template.labels.get("lavin.dev/role") in ROLES, "has no role, so that no network policy lets it speak")
    rule(not any("hostPath" in volume for volume in template.spec.get("volumes", [])), "mounts the host's files")
    for container in [*template.spec["containers"], *template.spec.get("initContainers", [])]:
        found += container_breaches(container)
    return found


def container_breaches(container):
    """The same for one container."""
    security, name, found = container.get("securityContext", {}), container["name"], []

    def rule(kept, words):
        if not kept:
            found.append(f"{name} {words}")

    rule(security.get("allowPrivilegeEscalation") is False, "may escalate privileges")
    rule(security.get("privileged", False) is False, "is privileged")
    rule(security.get("readOnlyRootFilesystem") is True, "may write its root file system")
    rule(security.get("capabilities") == {"drop": ["ALL"]}, "keeps capabilities")
    rule(security.get("runAsNonRoot", True) is True, "may run as root")
    rule(security.get("runAsUser", USER) == USER, "is another user")
    resources = container.get("resources", {})
    rule({"cpu", "memory"} <= resources.get("requests", {}).keys(), "asks for no CPU or memory")
    rule("memory" in resources.get("limits", {}), "has no limit of memory")
    rule("livenessProbe" not in container, "is restarted by a probe, which a training step that computes cannot answer")
    return found


GOOD = """
metadata: {labels: {app.kubernetes.io/part-of: lavin, lavin.dev/role: rank}}
spec:
  serviceAccountName: lavin-training
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: one
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 1Gi}}
"""
BREACHES = {
    "may run as root": lambda pod: pod["spec"]["securityContext"].pop("runAsNonRoot"),
    "is not 10001:10001": lambda pod: pod["spec"]["securityContext"].update(runAsUser=0),
    "is not confined by seccomp": lambda pod: pod["spec"]["securityContext"].pop("seccompProfile"),
    "shares the host": lambda pod: pod["spec"].update(hostNetwork=True),
    "mounts a token": lambda pod: pod["spec"].pop("automountServiceAccountToken"),
    "is not lavin-training": lambda pod: pod["spec"].pop("serviceAccountName"),
    "is not labelled as ours": lambda pod: pod["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
    "has no role, so that no network policy lets it speak": lambda pod: pod["metadata"]["labels"].pop("lavin.dev/role"),
    "mounts the host's files": lambda pod: pod["spec"].update(volumes=[{"name": "x", "hostPath": {"path": "/"}}]),
    "one may escalate privileges": lambda pod: pod["spec"]["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "one is privileged": lambda pod: pod["spec"]["containers"][0]["securityContext"].update(privileged=True),
    "one may write its root file system": lambda pod: pod["spec"]["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
    "one keeps capabilities": lambda pod: pod["spec"]["containers"][0]["securityContext"].update(capabilities={"add": ["SYS_PTRACE"]}),
    "one is another user": lambda pod: pod["spec"]["containers"][0]["securityContext"].update(runAsUser=0),
    "one asks for no CPU or memory": lambda pod: pod["spec"]["containers"][0]["resources"]["requests"].pop("cpu"),
    "one has no limit of memory": lambda pod: pod["spec"]["containers"][0]["resources"].pop("limits"),
    "one is restarted by a probe, which a training step that computes cannot answer": lambda pod: pod["spec"]["containers"][0].update(
        livenessProbe={}
    ),
    "two may escalate privileges": lambda pod: pod["spec"].update(
        initContainers=[copy.deepcopy(pod["spec"]["containers"][0]) | {"name": "two", "securityContext": {}}]
    ),
}


def test_every_pod_template_of_an_overlay_keeps_the_rules(overlay, pod_templates):
    shapes = [yaml.safe_load(text) for text in overlay.launcher_files().values()]
    found = [template for item in [*overlay.objects, *shapes] if "kind" in item for template in pod_templates(item)]
    assert {template.where.partition("/")[0] for template in found} == {"Job", "ClusterTrainingRuntime", "PyTorchJob"}
    assert {template.where: breaches(template) for template in found if breaches(template)} == {}


def test_every_job_that_the_launcher_makes_keeps_the_rules(jobs, pod_templates):
    found = [template for job in jobs for template in pod_templates(job)]
    assert len(found) == 3 * len(jobs) / 4, "a TrainJob's pods come from the runtime"
    assert {template.where: breaches(template) for template in found if breaches(template)} == {}


def test_a_trainjob_changes_nothing_of_the_runtimes_security(jobs):
    trainjobs = [job for job in jobs if job["kind"] == "TrainJob"]
    assert trainjobs
    for job in trainjobs:
        (patch,) = job["spec"]["runtimePatches"]
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        assert replicated["template"]["spec"]["template"]["spec"].keys() <= {"nodeSelector", "tolerations", "volumes"}


def test_every_rank_has_its_run_its_priority_and_a_place_to_write(jobs, overlay, pod_templates):
    (runtime,) = overlay.of("ClusterTrainingRuntime").values()
    found = [template for item in [*jobs, runtime] for template in pod_templates(item)]
    for template in found:
        assert template.spec["priorityClassName"] in overlay.of("PriorityClass")
        volumes = {volume["name"]: volume for volume in template.spec["volumes"]}
        mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in template.spec["containers"][0]["volumeMounts"]}
        assert mounted["/workspace"]["persistentVolumeClaim"]["claimName"] in overlay.of("PersistentVolumeClaim")
        assert mounted["/tmp"]["emptyDir"] == {}  # noqa: S108
        assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108
        if template.where.startswith("PyTorchJob"):
            assert {"lavin.dev/run", "lavin.dev/step", "app.kubernetes.io/managed-by"} <= template.labels.keys()


def test_no_job_of_several_pods_has_a_master(jobs):
    """The operator's init container would be refused by restricted Pod Security."""
    replicas = [job["spec"]["pytorchReplicaSpecs"] for job in jobs if job["kind"] == "PyTorchJob"]
    assert {tuple(each) for each in replicas} == {("Master",), ("Worker",)}


def test_a_pod_that_keeps_them_passes(pod_templates):
    (template,) = pod_templates({"kind": "Pod", **yaml.safe_load(GOOD) | {"metadata": {"name": "x", **yaml.safe_load(GOOD)["metadata"]}}})
    assert breaches(template) == []


@pytest.mark.parametrize("words", BREACHES)
def test_each_breach_is_seen_at_any_depth(words, pod_templates):
    pod = yaml.safe_load(GOOD)
    BREACHES[words](pod)
    deep = {"kind": "Thing", "metadata": {"name": "deep"}, "spec": {"groups": [{"template": {"spec": {"template": pod}}}]}}
    (template,) = pod_templates(deep)
    assert words in breaches(template)


def test_the_operators_hardened_init_container_keeps_the_rules():
    text = (MANIFESTS / "training-operator" / "initContainer.yaml").read_text()
    for name, value in {"InitContainerImage": "alpine:3.10", "MaxTries": "100", "MasterAddr": "job-master-0"}.items():
        text = text.replace("{{." + name + "}}", value)
    (container,) = yaml.safe_load(text)
    assert container_breaches(container) == []
    # It stands in a pod whose own context says the rest.
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "{{" not in text
