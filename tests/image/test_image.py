"""Builds both images and runs them as a cluster would: another user, nothing writable, no network. `make test-image` runs this."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Picture

from components.code_version import source_hash_of
from tests.image.engine import LABELS, LIMITS, Builder, Image, podman, podman_bytes

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

USER = "10001"
STOP_S = 20


def layers(image: Image) -> list[str]:
    found: list[str] = json.loads(podman("image", "inspect", "--format", "{{json .RootFS.Layers}}", image.name))
    return found


@pytest.fixture(scope="module")
def workspace(pipeline: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume that the image's user may write, on which the tiny recipe has been prepared and its ST-VAE trained."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(Path(__file__).parents[1] / "tiny.yaml", folder / "params.yaml")
    folder.chmod(0o777)
    mounts = {folder: "/workspace"}
    pipeline.run("python", "-m", "components", "prepare", mounts=mounts)
    said = pipeline.run("torchrun", "--nproc-per-node=1", "-m", "components", "train_vae", mounts=mounts)
    assert "progress: train ST-VAE 4/4" in said
    return folder


@pytest.fixture(scope="module")
def served(serve: Image, exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container that serves a bundle, started by the image's own entry point."""
    folder = tmp_path_factory.mktemp("served")
    bundle = shutil.copytree(exported_bundle, folder / "bundle")
    Picture.new("RGB", (48, 40), (200, 30, 30)).save(folder / "query.png")
    mounts = {bundle: "/bundle:ro", folder / "query.png": "/query.png:ro", Path(__file__).with_name("ask_server.py"): "/ask_server.py:ro"}
    container = podman("run", "--detach", *serve.options(mounts), serve.name, "/bundle").strip()
    yield container
    podman("rm", "--force", container)


def test_the_pipeline_image_is_our_version(pipeline: Image) -> None:
    assert pipeline.run("lavin", "--version").startswith("lavin ")


def test_it_runs_as_a_fixed_user_that_is_not_root(image: Image) -> None:
    assert image.run("id").startswith(f"uid={USER}(lavin) gid={USER}(lavin)")
    assert podman("image", "inspect", "--format", "{{.User}}", image.name).strip() == f"{USER}:{USER}"


def test_a_training_step_leaves_its_output_on_the_volume(workspace: Path) -> None:
    assert (workspace / "outputs" / "vae" / "weights.safetensors").stat().st_uid == int(USER)


def test_it_knows_its_revision_without_a_repository(pipeline: Image) -> None:
    said = pipeline.python("from components.code_version import git_commit; print(git_commit())")
    assert said == LABELS["org.opencontainers.image.revision"]


def test_its_code_has_the_name_of_the_code_it_was_built_from(pipeline: Image, checkout: Path) -> None:
    assert pipeline.python("from components.code_version import source_hash; print(source_hash())") == source_hash_of(checkout)


def test_job_shapes_and_recipes_are_inside(pipeline: Image) -> None:
    program = "from components.launcher.settings import load_platform, shapes_folder as f; from components.recipes import recipes; "
    said = pipeline.python(f"{program} load_platform(); print(sorted(p.name for p in f().iterdir()), sorted(recipes()))")
    assert "'pytorchjob.yaml'" in said
    assert "'laptop'" in said


def test_git_and_ssh_are_there_for_what_fetches_data(pipeline: Image) -> None:
    pipeline.run("git", "--version")
    pipeline.run("ssh", "-V")


def test_everything_that_was_installed_fits_together(image: Image) -> None:
    assert "No broken requirements" in image.run("pip", "check")


def test_our_code_is_compiled(image: Image) -> None:
    folder = "lavin_dit.__path__[0]"
    program = f"import compileall, lavin_dit, sys; from pathlib import Path; p = [*Path({folder}).rglob('*.py')]; "
    program += "from importlib.util import cache_from_source as c; print(len(p) > 20 and all(Path(c(str(f))).is_file() for f in p))"
    assert image.python(program) == "True"


def test_labels_tell_what_an_image_was_made_from(image: Image) -> None:
    labels = json.loads(podman("image", "inspect", "--format", "{{json .Labels}}", image.name))
    assert LABELS.items() <= labels.items()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"]


def test_what_pip_was_told_and_what_it_kept_is_in_no_layer(image: Image) -> None:
    assert "find-links" not in podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.name)
    left = image.run(
        "sh", "-c", "ls -A /wheels; cat /etc/pip.conf 2>/dev/null; find / -xdev -name '*.whl' -path '*pip/*' 2>/dev/null; true"
    )
    assert left == ""
    assert podman("run", "--rm", "--network=none", *LIMITS, "--entrypoint", "ls", image.name, "-A", "/tmp") == ""  # noqa: S108


def test_a_change_of_the_code_makes_the_last_layer_anew_and_no_other(
    image: Image, builder: Builder, checkout: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(checkout, tmp_path / "checkout")
    with (changed / "model" / "lavin_dit" / "flow.py").open("a", encoding="utf-8") as code:
        code.write("# another line\n")
    other = Image(image.target, builder.build(changed, image.target, f"{image.name}-changed"))
    before, after = layers(image), layers(other)
    podman("rmi", "--force", other.name)
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_the_server_holds_neither_torch_nor_kfp_nor_our_pipeline(serve: Image) -> None:
    names = ("torch", "kfp", "dvc", "kubernetes", "pydantic", "components", "pipelines")
    assert serve.python(f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])") == "[]"


def test_the_server_answers_a_prediction_and_stops_when_told(served: str) -> None:
    answer = podman_bytes("exec", served, "python", "/ask_server.py")
    picture = Picture.open(io.BytesIO(answer))
    assert (picture.format, picture.size) == ("PNG", (48, 40))
    podman("stop", "--time", str(STOP_S), served)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", served).strip() == "0"


def test_sizes_are_told(pipeline: Image, serve: Image) -> None:
    sizes = {image.target: int(podman("image", "inspect", "--format", "{{.Size}}", image.name)) / 2**20 for image in (pipeline, serve)}
    print({target: f"{size:.0f} MiB" for target, size in sizes.items()})  # noqa: T201
    assert sizes["serve"] < sizes["pipeline"] / 2
