"""A cluster for the launcher, and the shipped shapes with small patience."""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.launcher.api import Api
from components.launcher.settings import JobSettings, Platform, load_platform
from components.launcher.shapes import JobRequest
from components.launcher.surroundings import Surroundings
from tests.components.launcher.api_server import Cluster, FakeClock, serving
from tests.components.launcher.crd import Closed

SHIPPED = Path(__file__).parents[3] / "manifests" / "base" / "launcher"


@pytest.fixture(scope="session")
def closed(schemas: Path) -> Closed:
    return Closed(schemas)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(FakeClock())


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Api]:
    with serving(cluster) as api:
        yield api


@pytest.fixture(scope="session")
def platform() -> Platform:
    """Polls every second; waits for little."""
    shipped = load_platform(SHIPPED)
    return shipped.model_copy(update={"poll_s": 1.0, "deadline_s": 120.0, "start_timeout_s": 40.0, "max_restarts": 2})


@pytest.fixture(scope="session")
def surroundings() -> Surroundings:
    return Surroundings(run_id="run-1", image="registry/lavin@sha256:1", namespace="lavin", pod_name="", volume="lavin-workspace")


@pytest.fixture(scope="session")
def make_request() -> Callable[..., JobRequest]:
    def make(launcher: str = "pytorchjob", nodes: int = 1, min_nodes: int | None = None, processes: int = 1, **values: Any) -> JobRequest:
        settings = JobSettings.parse(
            launcher=launcher, nodes=nodes, min_nodes=min_nodes or nodes, processes=processes, accelerator=values.pop("accelerator", "cpu")
        )
        return JobRequest("train_dit", ["train_dit", "--section", "/workspace/store/.dit.section.json"], settings)

    return make


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the launcher has said so far."""
    # Another test may have set logging up as an entry point does.
    for name in ("components", "lavin_dit", "pipelines"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("components")]


@pytest.fixture(autouse=True)
def _the_same_jitter_every_time() -> None:
    random.seed(0)
