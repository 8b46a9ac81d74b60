"""Shards in a real S3 server on loopback, behind a proxy that breaks connections where a test asks it to."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lavin_dit.bucket import Bucket
from lavin_dit.data.reading.cache_folder import CacheFolder
from lavin_dit.data.reading.shard_cache import ShardCache
from lavin_dit.errors import InputError, StorageError
from lavin_dit.hashing import file_sha256
from tests.breaking_proxy import Proxy, proxy_to
from tests.s3_server import BUCKET, S3Server, serve

SIZE = 200_000
NAMES = tuple(f"train/shard-{number:05d}.tar" for number in range(5))
URL = f"s3://{BUCKET}/sets/one"
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serve(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(server: S3Server) -> Iterator[Proxy]:
    with proxy_to(server.port) as running:
        yield running


@pytest.fixture(autouse=True)
def objects(server: S3Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the set's objects as plain files: five shards of random bytes."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    proxy.faults.clear()
    shutil.rmtree(server.bucket, ignore_errors=True)
    folder = server.bucket / "sets" / "one"
    (folder / "train").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(os.urandom(SIZE))
    return folder


def make(folder: Path, objects: Path, *, num_shards: float = 10, delays_s: tuple[float, ...] = (0.0,)) -> ShardCache:
    """A cache with room for so many shards."""
    hashes = {name: file_sha256(objects / name) for name in NAMES}
    return ShardCache(Bucket(URL, setting="shards"), hashes, CacheFolder(folder, int(num_shards * SIZE)), retry_delays_s=delays_s)


def shards_in(folder: Path, objects: Path) -> set[str]:
    return {name for name in NAMES if (folder / file_sha256(objects / name)).exists()}


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def left_over(folder: Path) -> list[str]:
    """What is in a cache beside shards and locks."""
    return [path.name for path in folder.iterdir() if path.suffix in {".partial", ".reserved"}]


def test_a_shard_is_downloaded_once_and_has_its_bytes(server: S3Server, objects: Path, tmp_path: Path) -> None:
    before = len(server.downloads())
    for _ in range(2):
        with make(tmp_path, objects) as cache:
            for name in (NAMES[0], NAMES[1], NAMES[0]):
                assert cache.locate(name).read_bytes() == (objects / name).read_bytes()
    assert len(server.downloads()) == before + 2
    assert not left_over(tmp_path)


def test_shards_come_ahead_of_their_use(server: S3Server, objects: Path, tmp_path: Path) -> None:
    with make(tmp_path, objects) as cache:
        cache.hold(NAMES[:2], NAMES[2:4])
        wait_until(lambda: shards_in(tmp_path, objects) == set(NAMES[:4]))
        before = len(server.downloads())
        for name in NAMES[:4]:
            cache.locate(name)
        assert len(server.downloads()) == before


def test_the_least_recently_used_shard_goes_and_never_one_in_use(objects: Path, tmp_path: Path) -> None:
    with make(tmp_path, objects, num_shards=3) as cache, make(tmp_path, objects, num_shards=3) as other:
        for name in NAMES[:3]:
            cache.locate(name)
        cache.hold([])
        other.locate(NAMES[0])
        cache.locate(NAMES[3])
        assert shards_in(tmp_path, objects) == {NAMES[0], NAMES[2], NAMES[3]}
        cache.locate(NAMES[4])
        assert shards_in(tmp_path, objects) == {NAMES[0], NAMES[3], NAMES[4]}
        with pytest.raises(InputError, match=rf"{tmp_path}: cannot hold {NAMES[1]} beside the shards in use within its .* MiB; allow"):
            cache.locate(NAMES[1])
        other.hold([])
        assert cache.locate(NAMES[1]).read_bytes() == (objects / NAMES[1]).read_bytes()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * SIZE


def test_a_shard_waits_for_the_room_of_a_download_that_is_under_way(objects: Path, tmp_path: Path) -> None:
    folder, other, has_begun = CacheFolder(tmp_path, SIZE), "0" * 64, threading.Event()

    def download() -> None:
        with folder.alone(other), folder.reserve(other, SIZE) as path:
            has_begun.set()
            time.sleep(1.5)
            path.write_bytes(bytes(SIZE))

    thread = threading.Thread(target=download)
    with make(tmp_path, objects, num_shards=1) as cache:
        thread.start()
        assert has_begun.wait(10.0)
        assert cache.locate(NAMES[0]).read_bytes() == (objects / NAMES[0]).read_bytes()
    thread.join()
    assert shards_in(tmp_path, objects) == {NAMES[0]}


def test_fetching_ahead_never_pushes_out_what_is_wanted(objects: Path, tmp_path: Path) -> None:
    with make(tmp_path, objects, num_shards=3) as cache:
        cache.hold(NAMES[:1], NAMES[1:])
        wait_until(lambda: len(shards_in(tmp_path, objects)) == 3)
        cache.locate(NAMES[0])
        kept = shards_in(tmp_path, objects)
        cache.hold(NAMES[:1], NAMES[1:])
    assert len(shards_in(tmp_path, objects)) == 3
    assert shards_in(tmp_path, objects) == kept


@pytest.mark.parametrize("passed", [0, 300, SIZE // 2])
def test_a_connection_that_breaks_is_tried_again(passed: int, proxy: Proxy, objects: Path, tmp_path: Path) -> None:
    with make(tmp_path, objects, delays_s=(0.0, 0.0, 0.0)) as cache:
        proxy.faults += [("break", passed)] * 2
        assert cache.locate(NAMES[0]).read_bytes() == (objects / NAMES[0]).read_bytes()
    assert not proxy.faults
    assert not left_over(tmp_path)


def test_storage_that_does_not_answer_is_one_sentence(objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with (
        make(tmp_path, objects) as cache,
        pytest.raises(StorageError, match=rf"^{URL}: cannot be reached \(.*\); try again when it answers$"),
    ):
        cache.locate(NAMES[0])
    assert not left_over(tmp_path)


def test_storage_that_refuses_connections_and_comes_back_is_waited_for(
    server: S3Server, objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy_to(server.port) as closed:
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL", closed.url)
    with make(tmp_path, objects, delays_s=(0.1,) * 100) as cache, ThreadPoolExecutor(1) as pool:
        found = pool.submit(cache.locate, NAMES[0])
        with pytest.raises(TimeoutError):
            found.result(timeout=0.5)
        with proxy_to(server.port, own_port=closed.port):
            assert found.result(timeout=PATIENCE_S).read_bytes() == (objects / NAMES[0]).read_bytes()


def test_an_object_that_is_not_what_the_manifest_says_is_never_taken_for_data(server: S3Server, objects: Path, tmp_path: Path) -> None:
    with make(tmp_path, objects) as cache:
        before = len(server.downloads())
        damaged = bytearray((objects / NAMES[0]).read_bytes())
        damaged[SIZE // 2] ^= 1
        for content in (bytes(damaged), bytes(damaged[: SIZE // 2]), b""):
            (objects / NAMES[0]).write_bytes(content)
            with pytest.raises(InputError, match=rf"^{URL}/{NAMES[0]}: does not match its hash in the set's manifest; upload"):
                cache.locate(NAMES[0])
        assert len(server.downloads()) == before + 6, "each is tried twice, since the transfer may have been at fault"
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_shard_that_is_missing_and_one_that_is_no_part_of_the_set_are_refused(objects: Path, tmp_path: Path) -> None:
    with make(tmp_path, objects) as cache:
        (objects / NAMES[0]).unlink()
        with pytest.raises(InputError, match=rf"^{URL}/{NAMES[0]}: is missing$"):
            cache.locate(NAMES[0])
        with pytest.raises(InputError, match=rf"^{URL}/train/shard-99999\.tar: is not in the set's manifest"):
            cache.locate("train/shard-99999.tar")


def test_a_failure_ahead_is_told_when_the_shard_is_needed(objects: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with make(tmp_path, objects) as cache:
        (objects / NAMES[1]).unlink()
        cache.hold(NAMES[:1], NAMES[1:2])
        wait_until(lambda: "was not fetched ahead" in caplog.text)
        cache.locate(NAMES[0])
        with pytest.raises(InputError, match="is missing"):
            cache.locate(NAMES[1])


SECOND_PROCESS = """
import sys
from pathlib import Path
from tests.lavin_dit.data.reading.test_shard_cache import NAMES, make
with make(Path(sys.argv[1]), Path(sys.argv[2]), num_shards=float(sys.argv[3])) as cache:
    for name in NAMES[: int(sys.argv[4])]:
        print(cache.locate(name).name, flush=True)
    sys.stdin.read()
"""


def start_process(folder: Path, objects: Path, *, num_shards: float, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SECOND_PROCESS, str(folder), str(objects), str(num_shards), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_within_a_download_leaves_nothing_that_counts(proxy: Proxy, objects: Path, tmp_path: Path) -> None:
    proxy.faults.append(("hang", SIZE // 2))
    proxy.stuck.clear()
    with start_process(tmp_path, objects, num_shards=1.5, count=1) as process:
        assert proxy.stuck.wait(PATIENCE_S)
        wait_until(lambda: len(left_over(tmp_path)) == 2)
        process.send_signal(signal.SIGKILL)
    assert not shards_in(tmp_path, objects)
    with make(tmp_path, objects, num_shards=1.5) as cache:
        assert cache.locate(NAMES[1]).read_bytes() == (objects / NAMES[1]).read_bytes(), "its reservation died with it"
        assert not left_over(tmp_path)


def test_processes_share_a_cache_and_a_killed_one_holds_nothing(server: S3Server, objects: Path, tmp_path: Path) -> None:
    before = len(server.downloads())
    processes = [start_process(tmp_path, objects, num_shards=3, count=3) for _ in range(2)]
    for process in processes:
        assert process.stdout
        assert [process.stdout.readline().strip() for _ in range(3)] == [file_sha256(objects / name) for name in NAMES[:3]]
    assert len(server.downloads()) == before + 3
    with make(tmp_path, objects, num_shards=3) as cache:
        with pytest.raises(InputError, match="cannot hold"):
            cache.locate(NAMES[3])
        for process in processes:
            process.kill()
            process.communicate()
        cache.locate(NAMES[3])
    assert len(shards_in(tmp_path, objects)) == 3
