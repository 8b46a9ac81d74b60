"""Which ports of which pods Prometheus scrapes."""

from typing import Any

from components.launcher.kinds import KINDS
from components.launcher.shapes import PROCESSES_LABEL, RUN_LABEL
from lavin_dit.training.exporter import DEFAULT_PORT
from pipelines.monitoring.rules import SCRAPE_JOB

MAX_PROCESSES = 16
"""Of a pod: as many ports as the network policy `scraping` opens."""
INTERVAL = "15s"

Object = dict[str, Any]


def pod_monitor() -> Object:
    """One endpoint for each process that a pod can have; a pod keeps as many as its label says."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": SCRAPE_JOB},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/part-of": "lavin", "lavin.dev/role": "rank"}},
            "podMetricsEndpoints": [_endpoint(index) for index in range(MAX_PROCESSES)],
        },
    }


def _endpoint(index: int) -> Object:
    containers = "|".join(sorted({kind.container for kind in KINDS.values()}))
    return {
        "path": "/metrics",
        "interval": INTERVAL,
        "relabelings": [
            _keep("__meta_kubernetes_pod_container_name", containers),
            _keep(meta_label(PROCESSES_LABEL), "|".join(map(str, range(index + 1, MAX_PROCESSES + 1)))),
            # A job's pods need not declare their ports, and a TrainJob's cannot.
            {
                "sourceLabels": ["__meta_kubernetes_pod_ip"],
                "regex": "(.+)",
                "targetLabel": "__address__",
                "replacement": f"$1:{DEFAULT_PORT + index}",
                "action": "replace",
            },
            {"sourceLabels": [meta_label(RUN_LABEL)], "targetLabel": "run", "action": "replace"},
        ],
    }


def meta_label(label: str) -> str:
    """A pod's label as Prometheus's service discovery names it."""
    return "__meta_kubernetes_pod_label_" + "".join(character if character.isalnum() else "_" for character in label)


def _keep(source: str, regex: str) -> Object:
    return {"sourceLabels": [source], "regex": regex, "action": "keep"}
