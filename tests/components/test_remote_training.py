"""Training steps whose shards come from a real S3 server on loopback, through a cache that has no room for all of them."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from components import train_dit, train_vae
from components.entry import clear_errors
from lavin_dit.config import Config, load_config
from lavin_dit.data.shards.shard_set import ShardSet
from lavin_dit.errors import InputError
from lavin_dit.training.fit import fit
from lavin_dit.training.history import read_history
from lavin_dit.training.processes import Processes
from lavin_dit.training.vae_objective import VaeObjective
from lavin_dit.vae.st_vae import STVae
from tests.lavin_dit.data.mixed_shards import write_mixed_shards
from tests.s3_server import BUCKET, S3Server, serve

TINY = Path(__file__).parents[1] / "tiny.yaml"
URL = f"s3://{BUCKET}/sets/mixed"
WINDOW = 1
ROOM = 2 * 3 * WINDOW
CLIPS = [
    "prepare.clip_frames=5",
    "prepare.num_train_clips=6",
    "prepare.num_test_clips=6",
    "train_vae.clips={first_step: 0, share: 0.5, frames: 5}",
    "train_vae.steps=12",
]
LONG = [*CLIPS, "train_vae.steps=30", "train_vae.checkpoints.every_steps=3"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of many small shards."""
    return write_mixed_shards(tmp_path_factory.mktemp("mixed") / "shards", shard_bytes=1 << 13)


@pytest.fixture(autouse=True)
def cache(shards: Path, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where shards are kept; the same set is in the bucket."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    shutil.rmtree(server.bucket, ignore_errors=True)
    shutil.copytree(shards, server.bucket / "sets" / "mixed")
    return tmp_path / "caches" / "lavin" / "shards"


def loading(step: str, shards: Path, *, url: str = URL, room: float = ROOM, window: int = WINDOW) -> str:
    """An override that reads shards from storage, with room for a few."""
    cache_gib = room * max(path.stat().st_size for path in shards.glob("train/*.tar")) / 2**30
    return f"{step}.loading={{location: '{url}', cache_gib: {cache_gib}, window_shards: {window}}}"


def config_of(*overrides: str) -> Config:
    return load_config(TINY, overrides)


def train(shards: Path, target: Path, *overrides: str) -> Path:
    return run_step("train_vae", {"shards": shards}, target.parent, *overrides)


def run_step(step: str, inputs: Mapping[str, Path], folder: Path, *overrides: str) -> Path:
    config = config_of(*overrides)
    if step == "train_vae":
        train_vae.run(config.train_vae, inputs, {"vae": folder / "vae"})
        return folder / "vae"
    train_dit.run(config.train_dit, inputs, {"dit": folder / "dit"})
    return folder / "dit"


def num_kept(cache: Path) -> int:
    """Shards in a cache."""
    return sum(path.is_file() and not path.suffix for path in cache.iterdir())


def same(one: Path, other: Path) -> bool:
    names = ("weights.safetensors", "history.csv", "metrics.json", "model.json")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_the_st_vae_learns_from_storage_what_the_same_windows_of_a_folder_teach(
    shards: Path, cache: Path, server: S3Server, tmp_path: Path
) -> None:
    overrides, before = [*CLIPS, loading("train_vae", shards)], len(server.downloads())
    remote = train(shards, tmp_path / "vae", *overrides)
    num_shards = len(list(shards.glob("train/*.tar")))
    num_downloads = sum(name.endswith(".tar") for name in server.downloads()[before:])
    assert num_kept(cache) < num_shards < num_downloads, "some had to go, and came again"

    config = config_of(*overrides).train_vae
    network = STVae(config.shape)
    network.initialise(torch.Generator().manual_seed(config.seed))
    with ShardSet(shards, "train") as local:
        (tmp_path / "local").mkdir()
        objective = VaeObjective(network, local, config, torch.device("cpu"))
        fit("vae", objective, config, Processes(0, 1, torch.device("cpu")), tmp_path / "local")
    assert (remote / "history.csv").read_bytes() == (tmp_path / "local" / "history.csv").read_bytes()


def test_a_run_killed_at_any_moment_goes_on_from_another_copy_through_another_cache_and_ends_with_the_same_weights(
    shards: Path, server: S3Server, tmp_path: Path, kill_during: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*LONG, loading("train_vae", shards)]
    whole = train(shards, tmp_path / "whole" / "vae", *settings)
    kill_during("train_vae", {"shards": shards}, tmp_path / "vae", settings, before_step=18)
    with pytest.raises(InputError, match=r"of another run \(loading\.window_shards is 1 there and 2 here\): put it back"):
        train(shards, tmp_path / "vae", *LONG, loading("train_vae", shards, window=2))
    shutil.move(server.bucket / "sets", server.bucket / "moved")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    moved = loading("train_vae", shards, url=f"s3://{BUCKET}/moved/mixed", room=2 * ROOM)
    assert same(train(shards, tmp_path / "vae", *LONG, moved), whole)


def test_two_processes_share_a_cache_and_train_what_one_does(shards: Path, tmp_path: Path, command_of: Callable[..., list[str]]) -> None:
    overrides = [*CLIPS, "train_vae.steps=4", loading("train_vae", shards)]
    one = train(shards, tmp_path / "one" / "vae", *overrides)
    command = command_of("train_vae", {"shards": shards}, tmp_path / "vae", overrides, "--processes", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    for row, expected in zip(*(read_history(folder / "history.csv") for folder in (tmp_path / "vae", one)), strict=True):
        assert row == pytest.approx(expected, rel=1e-3)


def test_the_j_dit_learns_from_storage_what_it_does_from_a_folder(shards: Path, cache: Path, tmp_path: Path) -> None:
    vae = train(shards, tmp_path / "vae")
    inputs = {"shards": shards, "vae": vae}
    local = run_step("train_dit", inputs, tmp_path / "local")
    remote = run_step("train_dit", inputs, tmp_path / "remote", loading("train_dit", shards))
    assert same(local, remote)
    assert num_kept(cache) > 0


@pytest.mark.parametrize(
    ("secret", "url", "sentence"),
    [
        ("wrong", URL, f"{URL}: refuses the keys, or needs some"),
        (None, "s3://absent/mixed", "s3://absent/mixed/manifest.json: is missing"),
        (None, f"s3://{BUCKET}/sets/other", f"s3://{BUCKET}/sets/other/manifest.json: is missing"),
    ],
)
@pytest.mark.parametrize("step", ["train_vae", "train_dit"])
def test_storage_that_cannot_be_read_is_one_sentence(
    step: str,
    secret: str | None,
    url: str,
    sentence: str,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if secret:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    inputs = {"shards": shards, "vae": tmp_path / "vae"}
    with pytest.raises(SystemExit) as ended, clear_errors():
        run_step(step, inputs, tmp_path, loading(step, shards, url=url))
    written = capsys.readouterr().err
    assert (ended.value.code, written.count("\n")) == (2, 1)
    assert written.startswith(f"lavin: error: {sentence}")


def test_a_cache_without_room_for_the_windows_is_one_sentence(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot hold \S+\.tar beside the shards in use within its 0 MiB; allow the cache more, or read"):
        train(shards, tmp_path / "vae", *CLIPS, loading("train_vae", shards, room=1.5))


@pytest.mark.parametrize("url", ["folder/set", "gs://bucket/set", "s3:///set"])
def test_a_location_that_is_no_address_is_refused(url: str, shards: Path) -> None:
    with pytest.raises(InputError, match=r"train_vae\.loading\.location"):
        config_of(loading("train_vae", shards, url=url))
