"""Builds both images with podman from a base made here, and runs them as a cluster would: another user, nothing writable, no network.

`make test-image` runs this. BASE_IMAGE names a base image that is there already, with Python 3.11 and venv.
"""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from components.code_version import source_hash

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
SHELL = ("--entrypoint", "sh")
WANTED = "LAVIN_TEST_IMAGE"
USER = "10001"
BASE = "localhost/lavin-base:bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
LABELS = {"org.opencontainers.image.revision": "0123abc", "org.opencontainers.image.version": "v9.9.9"}
NPROC, NOFILE = resource.getrlimit(resource.RLIMIT_NPROC)[1], resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# What a sandbox without a systemd and without CAP_SYS_RESOURCE needs; harmless elsewhere.
LIMITS = [f"--ulimit=nofile={min(NOFILE, 1024)}", f"--ulimit=nproc={min(NPROC, 4096) if NPROC > 0 else 4096}"]


def call(*command: str, code: int = 0) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def podman(*arguments: str, code: int = 0) -> str:
    runtime = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"] if shutil.which("runc") else []
    return call("podman", *runtime, *arguments, code=code)


class Images(NamedTuple):
    """Both images, and what one may do with them."""

    pipeline: str
    serve: str

    @staticmethod
    def command(image: str, *command: str, mounts: dict[Path, str] | None = None, options: tuple[str, ...] = ()) -> list[str]:
        volumes = [f"--volume={path}:{place}" for path, place in (mounts or {}).items()]
        confined = ["--read-only", "--network=none", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp:rw,mode=1777"]
        return ["run", "--rm", *confined, *LIMITS, *volumes, *options, image, *command]

    def run(self, *command: str, mounts: dict[Path, str] | None = None) -> str:
        return podman(*self.command(self.pipeline, *command, mounts=mounts))


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
    mirror = call("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").splitlines()[0]
    call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder / "root"), mirror)
    call("tar", "-C", str(folder / "root"), "-cf", str(folder / "root.tar"), ".")
    podman("import", str(folder / "root.tar"), BASE)
    shutil.rmtree(folder)
    return BASE


@pytest.fixture(scope="session")
def wheels(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this machine's pip takes for the lock, so that the build needs nothing of its configuration."""
    folder = tmp_path_factory.mktemp("wheels")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["serve"],
        *project["build-system"]["requires"],
    ]
    call(sys.executable, "-m", "pip", "download", "--quiet", "--constraint", "constraints.txt", "--dest", str(folder), *names)
    return folder


@pytest.fixture(scope="session")
def images(base: str, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    pip = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    arguments = [f"BASE={base}", *(f"{name.rpartition('.')[2].upper()}={value}" for name, value in LABELS.items())]
    options = ["--isolation", "chroot", "--network", "host", "--secret", f"id=pip.conf,src={pip}", "--volume", f"{wheels}:/wheels:ro"]
    options += [part for argument in arguments for part in ("--build-arg", argument)]
    built = Images("localhost/lavin-pipelines:tested", "localhost/lavin-serve:tested")
    for target, name in (("pipeline", built.pipeline), ("serve", built.serve)):
        podman("build", "--quiet", *options, "--target", target, "--tag", name, ".")
    yield built
    podman("rmi", "--force", *built)


@pytest.fixture(scope="module")
def workspace(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of the image's user, on which the tiny recipe has been prepared and its ST-VAE trained."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(ROOT / "tests" / "tiny.yaml", folder / "params.yaml")
    folder.chmod(0o777)
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    images.run("python", "-m", "components", "prepare", mounts={folder: "/workspace"})
    said = images.run("torchrun", "--nproc-per-node=1", "-m", "components", "train_vae", mounts={folder: "/workspace"})
    assert "progress: train ST-VAE 4/4" in said
    return folder


def test_the_pipeline_image_is_our_version(images: Images) -> None:
    assert images.run("lavin", "--version").startswith("lavin ")


def test_it_runs_as_a_fixed_user_that_is_not_root(images: Images) -> None:
    for image in images:
        ids = podman(*Images.command(image, options=("--entrypoint", "id"))).strip()
        assert ids.startswith(f"uid={USER}")
        assert f"gid={USER}" in ids


def test_a_training_step_leaves_its_output_on_the_volume(workspace: Path) -> None:
    assert (workspace / "outputs" / "vae" / "weights.safetensors").stat().st_uid == int(USER)


def test_it_knows_its_revision_without_a_repository(images: Images) -> None:
    program = "from components.code_version import git_commit; print(git_commit())"
    assert images.run("python", "-c", program).strip() == LABELS["org.opencontainers.image.revision"]


def test_its_code_is_that_of_the_checkout(images: Images) -> None:
    program = "from components.code_version import source_hash; print(source_hash())"
    assert images.run("python", "-c", program).strip() == source_hash()


def test_job_shapes_and_recipes_are_inside(images: Images) -> None:
    program = "from components.launcher.settings import load_platform, shapes_folder as f; from components.recipes import recipes; "
    program += "load_platform(); print(sorted(p.name for p in f().iterdir()), sorted(recipes()))"
    said = images.run("python", "-c", program)
    assert "'pytorchjob.yaml'" in said
    assert "'laptop'" in said


def test_everything_that_was_installed_fits_together(images: Images) -> None:
    assert "No broken requirements" in images.run("pip", "check")


@pytest.mark.parametrize("target", Images._fields)
def test_labels_tell_what_an_image_was_made_from(images: Images, target: str) -> None:
    inspected = json.loads(podman("image", "inspect", getattr(images, target)))[0]
    assert LABELS.items() <= inspected["Labels"].items()
    assert inspected["User"] == f"{USER}:{USER}"


@pytest.mark.parametrize("target", Images._fields)
def test_what_pip_was_told_is_in_no_layer(images: Images, target: str) -> None:
    history = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", getattr(images, target))
    assert "find-links" not in history
    found = podman(*Images.command(getattr(images, target), "-c", "ls -A /wheels /etc/pip.conf /tmp/.cache || true", options=SHELL))
    assert found.split() == ["/wheels:"], "the mount point of the wheels, and nothing else"


def test_a_change_of_the_code_makes_only_the_last_layers_anew(images: Images) -> None:
    created = podman("history", "--format", "{{.CreatedBy}}", "--no-trunc", images.pipeline).splitlines()
    steps = [index for index, line in enumerate(created) if "/wheel" in line]
    dependencies = next(index for index, line in enumerate(created) if "/opt/lavin" in line and "COPY" in line)
    assert max(steps) < dependencies, "history lists the newest layer first"


def test_the_server_needs_neither_torch_nor_kfp(images: Images) -> None:
    program = "import importlib.util as u; print([n for n in ('torch', 'kfp', 'dvc', 'kubernetes', 'pydantic') if u.find_spec(n)])"
    assert podman(*Images.command(images.serve, "-c", program, options=("--entrypoint", "python"))).strip() == "[]"


def test_the_server_answers_a_prediction(images: Images, exported_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(exported_bundle, tmp_path / "bundle")
    query = tmp_path / "query.png"
    Image.new("RGB", (48, 40), (200, 30, 30)).save(query)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    program = Path(__file__).with_name("ask_server.py")
    mounts = {tmp_path / "bundle": "/bundle:ro", query: "/query.png:ro", program: "/ask_server.py:ro"}
    command = Images.command(images.serve, "/ask_server.py", mounts=mounts, options=("--entrypoint", "python"))
    runtime = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"] if shutil.which("runc") else []
    answer = subprocess.run(["podman", *runtime, *command], capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr.decode()
    picture = Image.open(io.BytesIO(answer.stdout))
    assert picture.format == "PNG"


def test_sizes_are_told(images: Images) -> None:
    sizes = {name: int(podman("image", "inspect", "--format", "{{.Size}}", image)) / 2**20 for name, image in images._asdict().items()}
    print({name: f"{size:.0f} MiB" for name, size in sizes.items()})  # noqa: T201
    assert sizes["serve"] < sizes["pipeline"]
