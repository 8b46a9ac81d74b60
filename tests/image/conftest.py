"""Both images, built once from a base made here.

`make test-image` asks for it. BASE_IMAGE names a base image that is there already, with Python 3.11, its venv, git and ssh.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.engine import ROOT, Builder, Image, call, podman

WANTED = "LAVIN_TEST_IMAGE"
BASE = "localhost/lavin-base:bookworm"
PACKAGES = "python3,python3-venv,ca-certificates,git,openssh-client"
CONTEXT = ("model", "components", "pipelines", "recipes", "manifests/base/launcher")
CONTEXT_FILES = ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    if WANTED not in os.environ:
        pytest.skip("takes minutes; `make test-image` runs it")
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    if given := os.environ.get("BASE_IMAGE"):
        return given
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode == 0:
        return BASE
    if not shutil.which("debootstrap"):
        pytest.skip(f"debootstrap is not installed, and there is neither {BASE} nor BASE_IMAGE")
    folder = tmp_path_factory.mktemp("base")
    mirror = call("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").decode().splitlines()[0]
    call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder / "root"), mirror)
    call("chroot", str(folder / "root"), "apt-get", "clean")
    call("tar", "-C", str(folder / "root"), "-cf", str(folder / "root.tar"), ".")
    podman("import", str(folder / "root.tar"), BASE)
    shutil.rmtree(folder)
    return BASE


@pytest.fixture(scope="session")
def builder(base: str, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    folder = tmp_path_factory.mktemp("builder")
    file = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, extras = file["project"], file["project"]["optional-dependencies"]
    names = [*project["dependencies"], *extras["datasets"], *extras["serve"], *file["build-system"]["requires"]]
    call(sys.executable, "-m", "pip", "download", "--quiet", "--constraint", "constraints.txt", "--dest", str(folder / "wheels"), *names)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n", encoding="utf-8")
    return Builder(base, folder / "wheels", folder / "pip.conf")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources that the images are built from."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in CONTEXT:
        shutil.copytree(ROOT / name, folder / name)
    for name in CONTEXT_FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def serve(builder: Builder, checkout: Path) -> Iterator[Image]:
    image = Image("serve", builder.build(checkout, "serve", "localhost/lavin-serve:tested"))
    yield image
    podman("rmi", "--force", image.name)


@pytest.fixture(scope="session")
def pipeline(builder: Builder, checkout: Path) -> Iterator[Image]:
    image = Image("pipeline", builder.build(checkout, "pipeline", "localhost/lavin-pipelines:tested"))
    yield image
    podman("rmi", "--force", image.name)


@pytest.fixture(params=["pipeline", "serve"])
def image(request: pytest.FixtureRequest) -> Image:
    """Each of the two."""
    found: Image = request.getfixturevalue(request.param)
    return found
