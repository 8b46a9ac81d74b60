import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavin_dit.errors import InputError
from pipelines import origin, release
from pipelines.compile import compile_pipeline
from pipelines.connection import connect
from pipelines.origin import content_hash, find_origin
from pipelines.package import Package, read_package
from pipelines.release import find_release, upload

RunCommand = Callable[..., Any]


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def work_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a tagged commit and another after it, in which the command runs; its remote's address holds a password."""
    folder = tmp_path / "work"
    (folder / "code").mkdir(parents=True)
    git(folder, "init", "--quiet")
    git(folder, "remote", "add", "origin", "https://me:password@git.example:8443/team/lavin.git")
    for number in range(2):
        (folder / "code" / "step.py").write_text(f"{number}\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", "work")
        git(folder, "tag", f"{'v0.3.0' if number == 0 else 'lavin-dit@v9.0.0'}")
    monkeypatch.setattr(origin, "SOURCE", folder / "code")
    monkeypatch.chdir(folder)
    return folder


def track(folder: Path, name: str = "raw") -> str:
    """Data, and the file with which DVC tracks them; gives their hash."""
    (folder / "data" / name).mkdir(parents=True)
    (folder / "data" / name / "a.txt").write_text("a")
    md5 = find_origin(folder / "data" / name).data_md5
    (folder / "data" / f"{name}.dvc").write_text(yaml.safe_dump({"outs": [{"md5": md5, "path": name}]}))
    return md5


def change_step(work_tree: Path) -> None:
    (work_tree / "code" / "step.py").write_text("changed\n")


def refusal(*words: object, run: RunCommand) -> str:
    with pytest.raises(InputError) as caught:
        run(upload, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_version_is_named_after_tag_commit_and_data(work_tree: Path) -> None:
    md5 = track(work_tree)
    found = find_origin(Path("data/raw"))
    assert found.version_name() == f"v0.3.0-1-g{git(work_tree, 'rev-parse', '--short', 'HEAD')}-data-{md5[:8]}"
    assert found.data_revision == ""
    git(work_tree, "add", "data/raw.dvc")
    git(work_tree, "commit", "--quiet", "-m", "data")
    assert find_origin(Path("data/raw")).data_revision == git(work_tree, "rev-parse", "HEAD")


def test_without_data_the_name_says_so(work_tree: Path) -> None:
    (work_tree / "data" / "raw").mkdir(parents=True)
    assert find_origin(Path("data/raw")).version_name().endswith("-nodata")


def test_data_that_are_tracked_but_not_here_count_all_the_same(work_tree: Path) -> None:
    md5 = track(work_tree)
    (work_tree / "data" / "raw" / "a.txt").unlink()
    assert find_origin(Path("data/raw")).data_md5 == md5


def test_data_that_differ_from_what_is_tracked_have_no_revision(work_tree: Path) -> None:
    md5 = track(work_tree)
    git(work_tree, "add", "data/raw.dvc")
    git(work_tree, "commit", "--quiet", "-m", "data")
    (work_tree / "data" / "raw" / "b.txt").write_text("b")
    found = find_origin(Path("data/raw"))
    assert found.data_md5 != md5
    assert found.data_revision == ""


def test_a_changed_work_tree_is_said_in_the_name(work_tree: Path) -> None:
    change_step(work_tree)
    assert "-dirty-nodata" in find_origin(Path("data/raw")).version_name()


def test_code_in_an_ignored_folder_of_another_repository_is_known_by_its_version(work_tree: Path) -> None:
    (work_tree / ".gitignore").write_text("installed\n")
    (work_tree / "installed").mkdir()
    assert find_origin(Path("data/raw"), work_tree / "installed").code.startswith("v")
    assert find_origin(Path("data/raw"), work_tree / "installed").url == ""


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("git@git.example:team/lavin.git", "https://git.example/team/lavin"),
        ("ssh://git@git.example:2222/team/lavin.git", "https://git.example/team/lavin"),
        ("https://git.example/team/lavin", "https://git.example/team/lavin"),
        ("/srv/lavin.git", ""),
    ],
)
def test_a_remote_is_linked_as_a_page_where_it_has_one(work_tree: Path, remote: str, page: str) -> None:
    git(work_tree, "remote", "set-url", "origin", remote)
    assert find_origin(Path("data/raw")).url == page


def test_the_first_upload_makes_the_pipeline_and_a_version(kfp: Any, work_tree: Path, compiled: Path, run_command: RunCommand) -> None:
    told = run_command(upload, compiled)
    (version,) = kfp.store.versions.values()
    name = find_origin(Path("data/raw")).version_name()
    link = f"{kfp.host}/#/pipelines/details/{version['pipeline_id']}/version/{version['pipeline_version_id']}"
    assert told.stdout == f"lavin-dit: version {name} uploaded\n{link}\n"
    assert told.stderr == ""
    assert [pipeline["name"] for pipeline in kfp.store.pipelines.values()] == ["lavin-dit"]
    assert version["name"] == name


def test_what_is_uploaded_is_byte_for_byte_what_compile_wrote(kfp: Any, work_tree: Path, compiled: Path, run_command: RunCommand) -> None:
    run_command(upload, compiled)
    (request,) = kfp.sent("POST", "upload_version")
    assert request.upload == compiled.read_bytes()
    assert len(list(yaml.safe_load_all(request.upload))) == 2


def test_compiling_on_the_way_uploads_the_same(kfp: Any, work_tree: Path, compiled: Path, image: str, run_command: RunCommand) -> None:
    run_command(upload, "--image", image)
    (request,) = kfp.sent("POST", "upload_version")
    assert request.upload == compiled.read_bytes()


def test_line_breaks_are_uploaded_as_they_are(kfp: Any, work_tree: Path, compiled: Path, tmp_path: Path, run_command: RunCommand) -> None:
    (tmp_path / "windows.yaml").write_bytes(compiled.read_bytes().replace(b"\n", b"\r\n"))
    run_command(upload, tmp_path / "windows.yaml")
    assert kfp.sent("POST", "upload_version")[0].upload == (tmp_path / "windows.yaml").read_bytes()


def test_the_description_links_code_data_and_image(kfp: Any, work_tree: Path, compiled: Path, image: str, run_command: RunCommand) -> None:
    md5 = track(work_tree)
    git(work_tree, "add", "data/raw.dvc")
    git(work_tree, "commit", "--quiet", "-m", "data")
    run_command(upload, compiled)
    (version,) = kfp.store.versions.values()
    commit = git(work_tree, "rev-parse", "HEAD")
    lines = version["description"].splitlines()
    assert lines[0] == f"- code: https://git.example/team/lavin/commit/{commit}"
    assert lines[1].startswith("- source: sha256:")
    assert lines[2] == f"- data: md5 {md5}, revision {commit}"
    assert lines[3] == f"- image: {image}"
    assert lines[4] == f"- pipeline: sha256:{content_hash(compiled.read_text())}"
    assert "password" not in version["description"]


def test_the_same_again_makes_no_second_version(kfp: Any, work_tree: Path, compiled: Path, run_command: RunCommand) -> None:
    first = run_command(upload, compiled)
    second = run_command(upload, compiled)
    assert len(kfp.store.versions) == 1
    assert "is there already, the same as this" in second.stdout
    assert second.stdout.splitlines()[1] == first.stdout.splitlines()[1]


def test_another_content_of_the_same_name_is_refused(
    kfp: Any, work_tree: Path, compiled: Path, image: str, tmp_path: Path, run_command: RunCommand
) -> None:
    run_command(upload, compiled)
    compile_pipeline("registry.example/other@sha256:1", tmp_path / "other.yaml")
    assert "is there already, with other content than this" in refusal(tmp_path / "other.yaml", run=run_command)
    assert run_command(upload, tmp_path / "other.yaml", "--name", "mine").stdout.startswith("lavin-dit: version mine uploaded")
    assert [len(kfp.store.pipelines), len(kfp.store.versions)] == [1, 2]


def test_a_version_made_by_other_means_is_not_taken_for_the_same(
    kfp: Any, work_tree: Path, compiled: Path, run_command: RunCommand
) -> None:
    run_command(upload, compiled, "--name", "one")
    next(iter(kfp.store.versions.values()))["description"] = "by hand"
    assert "with other content" in refusal(compiled, "--name", "one", run=run_command)


def test_two_uploads_at_the_same_moment_make_one_version(kfp: Any, work_tree: Path, compiled: Path, run_command: RunCommand) -> None:
    kfp.break_down(409, path="upload_version", message="Failed to create a pipeline version")
    assert "made at this very moment" in refusal(compiled, run=run_command)


def test_a_changed_work_tree_and_an_image_without_digest_are_warned_of(
    kfp: Any, work_tree: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    change_step(work_tree)
    compile_pipeline("registry.example/lavin:latest", tmp_path / "p.yaml")
    told = run_command(upload, tmp_path / "p.yaml")
    assert [line.partition("warning: ")[2][:14] for line in told.stderr.splitlines()] == ["the work tree ", "image registry"]
    (version,) = kfp.store.versions.values()
    assert "and changes that no commit holds" in version["description"]


def test_on_a_server_of_several_users_the_pipeline_is_in_ones_own_namespace(
    make_kfp: Callable[..., Any], work_tree: Path, compiled: Path, run_command: RunCommand
) -> None:
    kfp = make_kfp(multi_user=True)
    run_command(upload, compiled, "--host", kfp.host, "--namespace", "mine")
    run_command(upload, compiled, "--host", kfp.host, "--namespace", "mine")
    assert [pipeline["namespace"] for pipeline in kfp.store.pipelines.values()] == ["mine"]


def test_what_cannot_be_uploaded_is_refused_before_anything_is_sent(
    kfp: Any, work_tree: Path, compiled: Path, image: str, tmp_path: Path, run_command: RunCommand
) -> None:
    assert "takes either a FILE" in refusal(run=run_command)
    assert "takes either a FILE" in refusal(compiled, "--image", image, run=run_command)
    assert "--volume mine: goes with --image" in refusal(compiled, "--volume", "mine", run=run_command)
    assert "must be a readable file" in refusal(tmp_path / "absent", run=run_command)
    for text in ("", "just: this", "{", "a: 1\n---\nb: 2\n---\nc: 3\n", "root: {}\npipelineInfo: {}\n"):
        (tmp_path / "wrong.yaml").write_text(text)
        assert "must hold a compiled pipeline" in refusal(tmp_path / "wrong.yaml", run=run_command)
    for name in ("latest", "", " a", "a" * 128):
        assert "--name" in refusal(compiled, "--name", name, run=run_command)
    assert kfp.requests == []


def test_another_pipeline_is_refused(kfp: Any, work_tree: Path, compiled: Path, tmp_path: Path, run_command: RunCommand) -> None:
    (tmp_path / "other.yaml").write_text(compiled.read_text().replace("name: lavin-dit", "name: other"))
    assert "holds the pipeline other; must hold lavin-dit" in refusal(tmp_path / "other.yaml", run=run_command)
    assert kfp.store.pipelines == {}


def test_a_release_is_found_by_name_and_the_newest_without(kfp: Any, work_tree: Path, compiled: Path, run_command: RunCommand) -> None:
    reached = connect(None, None, None)
    with pytest.raises(InputError, match="has no pipeline lavin-dit; `lavin upload` makes it"):
        find_release(reached, "latest")
    for number in range(6):
        run_command(upload, compiled, "--name", f"v{number}")
    assert find_release(reached, "latest").display_name == "v5"
    assert find_release(reached, "v3").display_name == "v3"
    with pytest.raises(InputError, match=r"--version v99: lavin-dit has no such version; newest: v5, v4, v3, v2, v1$"):
        find_release(reached, "v99")


def test_a_pipeline_without_versions_is_said_to_have_none(kfp: Any) -> None:
    reached = connect(None, None, None)
    reached.pipelines.pipeline_service_create_pipeline({"display_name": "lavin-dit"})
    with pytest.raises(InputError, match="has no version of lavin-dit"):
        find_release(reached, "latest")


def test_a_package_is_the_same_from_a_file_and_from_a_server(
    kfp: Any, work_tree: Path, compiled: Path, image: str, run_command: RunCommand
) -> None:
    run_command(upload, compiled)
    text, package = read_package(compiled)
    spec = find_release(connect(None, None, None), release.LATEST).pipeline_spec
    assert Package.from_spec(spec) == package
    assert package.spec() == spec
    assert text == compiled.read_text()
    assert package.images == [image]


def test_a_package_knows_its_steps_and_which_may_be_cached(compiled: Path) -> None:
    _, package = read_package(compiled)
    steps = package.steps()
    assert {"resolve", "prepare", "train-vae", "conclude"} < set(steps)
    assert not any(name.startswith(("condition", "exit-handler")) for name in steps)
    assert (steps["train-vae"], steps["resolve"]) == (True, False)


def test_without_cache_no_step_is_taken_from_it_however_deep_it_lies(compiled: Path) -> None:
    _, package = read_package(compiled)
    assert not any(package.without_cache().steps().values())
    assert any(package.steps().values()), "the package itself stays as it is"
