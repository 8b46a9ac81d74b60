"""A KFP server for the commands that talk to one, and an environment in which nothing else names a server."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

VARIABLES = (
    "KFP_ENDPOINT",
    "KF_PIPELINES_ENDPOINT",
    "KF_PIPELINES_UI_ENDPOINT",
    "KFP_NAMESPACE",
    "KFP_TOKEN",
    "KF_PIPELINES_SA_TOKEN_PATH",
    "KF_PIPELINES_DEFAULT_EXPERIMENT_NAME",
    "SSL_CERT_FILE",
)


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


kfp_server = _load("kfp_server")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with no settings in it, and an environment with none."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".config" / "kfp").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def make_kfp(schemas: Path, home: Path) -> Iterator[Callable[..., Any]]:
    """Starts servers; afterwards nothing may have been sent or answered that the official schema refuses."""
    servers: list[Any] = []

    def make(**options: Any) -> Any:
        servers.append(kfp_server.KfpServer(schemas, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()
        assert server.violations == []


@pytest.fixture
def kfp(make_kfp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server of a single user, named by KFP_ENDPOINT."""
    server = make_kfp()
    monkeypatch.setenv("KFP_ENDPOINT", server.host)
    return server


@pytest.fixture(scope="session")
def image() -> str:
    """An image, by digest."""
    return f"registry.example/lavin@sha256:{'0' * 64}"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, image: str) -> Path:
    """What `lavin compile` writes; the name is not the one that a server wants."""
    from pipelines.compile import compile_pipeline

    file = tmp_path_factory.mktemp("compiled") / "any.name"
    compile_pipeline(image, file)
    return file


@pytest.fixture
def released(kfp: Any, compiled: Path) -> Any:
    """A server with two versions of the pipeline, v0.2.0 and then v0.3.0."""
    from pipelines.connection import connect
    from pipelines.release import upload_version

    for name in ("v0.2.0", "v0.3.0"):
        upload_version(connect(None, None, None), name, compiled.read_text(), "")
    kfp.requests.clear()
    return kfp


@pytest.fixture
def run_command() -> Callable[..., Any]:
    """Runs one of the commands as the command line would; what it raises comes through."""

    def run(command: Callable[..., None], *words: object) -> Any:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(command)
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)

    return run
