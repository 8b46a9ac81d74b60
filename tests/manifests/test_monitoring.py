"""What the Prometheus Operator is given: objects of the shape that it takes, about pods that exist."""

import re
from pathlib import Path

import pytest
import yaml

from components.launcher.shapes import PROCESSES_LABEL
from lavin_dit.training.exporter import ADDRESS_VARIABLE, DEFAULT_PORT, PORT_VARIABLE
from pipelines.monitoring.targets import MAX_PROCESSES, meta_label

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAY = MANIFESTS / "overlays" / "prod-monitored"
RELABELING = {"sourceLabels", "separator", "regex", "modulus", "targetLabel", "replacement", "action"}
RULE = {"alert": {"alert", "expr", "for", "labels", "annotations"}, "record": {"record", "expr"}}
DURATION = re.compile(r"^(0|(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$")


@pytest.fixture
def objects(render):
    """By kind, as `kubectl apply -k manifests/monitoring` sends them."""
    return {item["kind"]: item for item in yaml.safe_load_all(render(MANIFESTS / "monitoring"))}


@pytest.fixture
def endpoints(objects):
    """The PodMonitor's."""
    return objects["PodMonitor"]["spec"]["podMetricsEndpoints"]


def test_it_is_these_objects_in_our_namespace_and_labelled_as_ours(objects):
    assert set(objects) == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    for item in objects.values():
        assert item["metadata"]["namespace"] == "lavin"
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "lavin"
    assert {objects[kind]["apiVersion"] for kind in ("PodMonitor", "PrometheusRule")} == {"monitoring.coreos.com/v1"}


def test_prod_monitored_is_prod_and_these(objects, prod, render):
    rendered = list(yaml.safe_load_all(render(OVERLAY)))
    ours = [item for item in rendered if item in objects.values()]
    assert len(ours) == 3
    assert [item for item in rendered if item not in ours] == prod.objects


def test_rules_have_the_fields_of_the_operators_schema(objects):
    for group in objects["PrometheusRule"]["spec"]["groups"]:
        assert group.keys() <= {"name", "interval", "rules"}
        for rule in group["rules"]:
            (kind,) = rule.keys() & RULE.keys()
            assert rule.keys() == RULE[kind]
            assert DURATION.fullmatch(rule.get("for", "0"))
            assert {type(value) for part in ("labels", "annotations") for value in rule.get(part, {}).values()} <= {str}


def test_targets_have_the_fields_of_the_operators_schema(objects, endpoints):
    assert objects["PodMonitor"]["spec"].keys() == {"selector", "podMetricsEndpoints"}
    for endpoint in endpoints:
        assert endpoint.keys() == {"path", "interval", "relabelings"}
        assert DURATION.fullmatch(endpoint["interval"])
        for rule in endpoint["relabelings"]:
            assert rule.keys() <= RELABELING
            assert rule["action"] in {"keep", "replace"}


def test_grafanas_sidecar_finds_the_dashboard(objects):
    config = objects["ConfigMap"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["data"] == {"dashboard.json": (MANIFESTS / "monitoring" / "dashboard.json").read_text()}
    # kubectl apply keeps a copy of the object in an annotation of this size.
    assert len(config["data"]["dashboard.json"]) < 200_000


def test_the_monitor_is_about_the_pods_that_the_network_policy_lets_be_scraped(objects, prod, endpoints):
    policy = prod.of("NetworkPolicy")["scraping"]["spec"]
    selected = objects["PodMonitor"]["spec"]["selector"]["matchLabels"]
    assert policy["podSelector"]["matchLabels"].items() <= selected.items()
    (ports,) = policy["ingress"][0]["ports"]
    assert (ports["port"], ports["endPort"]) == (DEFAULT_PORT, DEFAULT_PORT + MAX_PROCESSES - 1)
    addresses = [
        rule["replacement"] for endpoint in endpoints for rule in endpoint["relabelings"] if rule.get("targetLabel") == "__address__"
    ]
    assert addresses == [f"$1:{port}" for port in range(ports["port"], ports["endPort"] + 1)]


def scraped_ports(endpoints, labels):
    """What becomes of one container of a pod, as Prometheus carries out relabelings."""
    ports = []
    for endpoint in endpoints:
        target = dict(labels)
        for rule in endpoint["relabelings"]:
            value = ";".join(target.get(label, "") for label in rule["sourceLabels"])
            found = re.fullmatch(rule.get("regex", "(.*)"), value)
            if rule["action"] == "keep" and not found:
                break
            if rule["action"] == "replace" and found:
                target[rule["targetLabel"]] = found.expand(rule.get("replacement", "$1").replace("$1", r"\1"))
        else:
            ports.append((target["__address__"], target["run"]))
    return ports


def test_every_process_of_a_pod_is_scraped_once_and_init_containers_never(jobs, endpoints, pod_templates):
    for job in jobs:
        for template in pod_labels(job):
            meta = {meta_label(name): value for name, value in template.items()}
            meta["__meta_kubernetes_pod_ip"] = "10.1.2.3"
            container = "node" if job["kind"] == "TrainJob" else "pytorch"
            scraped = scraped_ports(endpoints, meta | {"__meta_kubernetes_pod_container_name": container})
            assert scraped == [(f"10.1.2.3:{DEFAULT_PORT + index}", "run-1") for index in range(8)]
            assert scraped_ports(endpoints, meta | {"__meta_kubernetes_pod_container_name": "init-pytorch"}) == []


def pod_labels(job):
    """Of the pods that a job asks for."""
    if job["kind"] == "PyTorchJob":
        return [replica["template"]["metadata"]["labels"] for replica in job["spec"]["pytorchReplicaSpecs"].values()]
    (patch,) = job["spec"]["runtimePatches"]
    return [
        each["template"]["spec"]["template"]["metadata"]["labels"]
        for each in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    ]


@pytest.mark.parametrize("processes", [1, 10, MAX_PROCESSES])
def test_a_pod_is_scraped_as_often_as_it_has_processes(processes, endpoints):
    pod = {
        meta_label(PROCESSES_LABEL): str(processes),
        meta_label("lavin.dev/run"): "r",
        "__meta_kubernetes_pod_ip": "10.1.2.3",
        "__meta_kubernetes_pod_container_name": "pytorch",
    }
    assert len(scraped_ports(endpoints, pod)) == processes


def test_every_rank_of_a_job_is_told_to_be_watched(jobs):
    for job in jobs:
        if job["kind"] == "TrainJob":
            containers = [job["spec"]["trainer"]]
        else:
            containers = [replica["template"]["spec"]["containers"][0] for replica in job["spec"]["pytorchReplicaSpecs"].values()]
        for container in containers:
            told = {entry["name"]: entry["value"] for entry in container["env"]}
            assert (told[ADDRESS_VARIABLE], told[PORT_VARIABLE]) == ("0.0.0.0", str(DEFAULT_PORT))  # noqa: S104
