"""Writes manifests/monitoring from code: `python -m pipelines.monitoring`."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from pipelines.monitoring.dashboard import dashboard
from pipelines.monitoring.rules import rule_groups
from pipelines.monitoring.targets import pod_monitor

FOLDER = Path("manifests/monitoring")
HEADER = "# Made by `python -m pipelines.monitoring`; change it there.\n"


def files() -> dict[str, str]:
    """What is written, by name."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "lavin-training"},
        "spec": rule_groups(),
    }
    return {
        "rules.yaml": _yaml(rule_groups()),
        "prometheus-rule.yaml": _yaml(rule),
        "pod-monitor.yaml": _yaml(pod_monitor()),
        "dashboard.json": dashboard(),
    }


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.monitoring", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    folder: Path = parser.parse_args().folder
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


def _yaml(document: Any) -> str:
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=140, allow_unicode=True)


if __name__ == "__main__":
    main()
