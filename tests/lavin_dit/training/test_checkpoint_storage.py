"""Checkpoints in a real S3 server on loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lavin_dit.errors import InputError, StorageError
from tests.lavin_dit.training.even_state import SHARD, names, restored, said, save, state
from tests.s3_server import BUCKET, S3Server, serve

URL = f"s3://{BUCKET}/runs/vae"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(autouse=True)
def objects(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with this test's objects as plain files."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(server.bucket, ignore_errors=True)
    server.bucket.mkdir()
    return server.bucket / "runs" / "vae"


def remote(folder: Path) -> tuple[int, float] | None:
    return restored(folder, location=URL)


def test_a_new_run_finds_an_empty_bucket(tmp_path: Path) -> None:
    assert remote(tmp_path) is None


def test_checkpoints_are_uploaded_and_another_node_takes_them_up(objects: Path, tmp_path: Path) -> None:
    save(tmp_path / "one", 1, 2, 3, location=URL, keep_last=2)
    assert names(objects) == ["step-00000002", "step-00000003"]
    assert names(objects / "step-00000003") == ["complete.json", "facts.json", SHARD]
    assert remote(tmp_path / "two") == (3, 3.0)
    assert names(tmp_path / "two") == ["step-00000003"], "and it goes on from there"


def test_what_is_here_already_is_not_downloaded_again(server: S3Server, tmp_path: Path) -> None:
    save(tmp_path, 1, 2, location=URL)
    before = len(server.downloads())
    assert remote(tmp_path) == (2, 2.0)
    assert len(server.downloads()) == before


def test_a_newer_one_in_storage_is_taken_before_an_older_one_here(tmp_path: Path) -> None:
    save(tmp_path / "one", 1, location=URL)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    save(tmp_path / "one", 5, location=URL)
    assert remote(tmp_path / "two") == (5, 5.0)


def test_one_that_is_damaged_here_comes_from_storage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1, 2, location=URL)
    (tmp_path / "step-00000002" / SHARD).write_bytes(b"")
    assert remote(tmp_path) == (2, 2.0)
    (line,) = said(caplog)
    assert line.startswith(f"{URL}: step-00000002 is damaged ({SHARD} has 0 bytes instead of ")


@pytest.mark.parametrize(
    ("name", "told"),
    [(SHARD, f"{SHARD} is missing"), ("facts.json", "facts.json is missing"), ("complete.json", "complete.json cannot")],
)
def test_one_that_is_damaged_in_storage_is_passed_over(
    name: str, told: str, objects: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "one", 1, 2, location=URL)
    if name == "complete.json":
        (objects / "step-00000002" / name).write_text("{")
    else:
        (objects / "step-00000002" / name).unlink()
    assert remote(tmp_path / "two") == (1, 1.0)
    assert [told in line for line in said(caplog)] == [True]
    save(tmp_path / "two", 2, 3, location=URL, keep_last=1)
    assert names(objects) == ["step-00000003"]


def test_an_upload_that_was_cut_short_is_no_checkpoint(objects: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "one", 1, 2, location=URL)
    (objects / "step-00000002" / "complete.json").unlink()
    assert remote(tmp_path / "two") == (1, 1.0)
    assert said(caplog) == []


def test_what_is_here_without_a_marker_comes_from_storage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1, 2, location=URL)
    (tmp_path / "step-00000002" / "complete.json").unlink()
    (tmp_path / "step-00000002" / SHARD).write_bytes(b"")
    assert remote(tmp_path) == (2, 2.0)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert said(caplog) == []


def test_a_step_that_is_written_again_leaves_nothing_of_the_old_one(objects: Path, tmp_path: Path) -> None:
    save(tmp_path / "one", 1, location=URL)
    (objects / "step-00000001" / "shard-00001.safetensors").write_text("of a run with more processes")
    save(tmp_path / "two", 1, location=URL)
    assert names(objects / "step-00000001") == ["complete.json", "facts.json", SHARD]


def test_the_best_in_storage_stays_for_a_node_that_has_never_seen_it(objects: Path, tmp_path: Path) -> None:
    save(tmp_path / "one", 1, 2, scores={1: 0.1}, location=URL, keep_best=True)
    run = save(tmp_path / "two", location=URL, keep_last=1, keep_best=True)
    assert run.restore(state(-1.0)) == (2, {"position": 2})
    run.save(3, state(3), {}, score=0.5, final=True)
    assert names(objects) == ["step-00000001", "step-00000003"]


def test_wrong_keys_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=rf"^{URL}: refuses the keys, or needs some \(.*\); they come from AWS_ACCESS_KEY_ID and AWS_"):
        remote(tmp_path)


def test_no_keys_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match=rf"^{URL}: refuses the keys, or needs some \("):
        remote(tmp_path)


def test_a_bucket_that_is_absent_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^s3://absent/runs: there is no such bucket \(.*\); see checkpoints\.location$"):
        restored(tmp_path, location="s3://absent/runs")


def test_a_bucket_that_vanishes_is_one_sentence_and_the_checkpoint_is_here(server: S3Server, tmp_path: Path) -> None:
    run = save(tmp_path, 1, location=URL)
    shutil.rmtree(server.bucket)
    run.save(2, state(2), {"position": 2}, score=1.0)
    with pytest.raises(InputError, match=rf"^{URL}: there is no such bucket"):
        run.wait()
    assert restored(tmp_path) == (2, 2.0)


def test_storage_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=rf"^{URL}: cannot be reached \(.*\); try again when it answers$"):
        remote(tmp_path)


def test_a_name_that_no_bucket_has_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^checkpoints\.location is s3://no bucket!/runs: the bucket's name no bucket! may hold letters"):
        restored(tmp_path, location="s3://no bucket!/runs")


def test_an_endpoint_that_is_no_address_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "storage.example")
    with pytest.raises(InputError, match=rf"^{URL}: cannot be asked \(Invalid endpoint: storage\.example\); see AWS_ENDPOINT_URL and"):
        remote(tmp_path)
