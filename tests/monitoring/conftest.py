"""Debian's Prometheus, on loopback, where it is at hand."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

FETCHED = Path(sys.prefix) / "prometheus"
"""Where `tests/monitoring/fetch_prometheus.sh .venv/prometheus` puts it."""


class Prometheus:
    """A running server, and what it knows."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expr: str) -> dict[str, float]:
        """Values by the labels that tell them apart: `rank=0`, an alert's name."""
        url = f"http://{self._address}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
        return {_name(series["metric"]): float(series["value"][1]) for series in result}

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return set(self.query('count by (alertname) (ALERTS{alertstate="firing"})'))

    def wait_for(self, expr: str, is_it: Callable[[dict[str, float]], bool], *, timeout_s: float = 30.0) -> dict[str, float]:
        """The values once they are as they should be."""
        until = time.monotonic() + timeout_s
        while True:
            values = self.query(expr)
            if is_it(values):
                return values
            assert time.monotonic() < until, f"{expr} is {values}"
            time.sleep(0.2)


def _name(labels: dict[str, str]) -> str:
    return labels.get("alertname") or ",".join(f"{name}={labels[name]}" for name in ("rank", "part", "task", "reason") if name in labels)


def _tool(name: str) -> Path:
    found = shutil.which(name, path=f"{FETCHED}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is neither on the path nor in {FETCHED}: run tests/monitoring/fetch_prometheus.sh {FETCHED}")
    return Path(found)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The checker of rules."""
    return _tool("promtool")


@pytest.fixture
def free_ports() -> Callable[[int], int]:
    """The first of several free ports in a row."""
    return _free_ports


def _free_ports(count: int) -> int:
    while True:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            sockets[0].bind(("127.0.0.1", 0))
            first: int = sockets[0].getsockname()[1]
            try:
                for offset, other in enumerate(sockets[1:], start=1):
                    other.bind(("127.0.0.1", first + offset))
            except (OSError, OverflowError):
                continue
            return first


@pytest.fixture
def start_prometheus(tmp_path: Path, free_ports: Callable[[int], int]) -> Callable[..., Any]:
    """Starts a server that scrapes `targets` every second, by the rules given."""
    program = _tool("prometheus")

    @contextmanager
    def start(targets: list[str], rules: dict[str, Any], *, job: str) -> Iterator[Prometheus]:
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": targets}]}],
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_ports(1)}"
        command = [str(program), f"--config.file={tmp_path / 'prometheus.yaml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        with (tmp_path / "prometheus.log").open("w") as log:
            server = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
        try:
            _wait_until_ready(address, server, tmp_path / "prometheus.log")
            yield Prometheus(address)
        finally:
            server.kill()
            server.wait()

    return start


def _wait_until_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 20
    while True:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
                return
        except OSError:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
