"""A set of shards that lies in S3 storage too: its small files are read where the step before left them, its shards through a cache."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lavin_dit.bucket import Bucket
from lavin_dit.data.reading.cache_folder import CacheFolder
from lavin_dit.data.reading.fetching import RETRY_DELAYS_S, patiently
from lavin_dit.data.reading.shard_cache import ShardCache
from lavin_dit.data.shards.shard_set import MANIFEST_NAME, ShardSet, read_manifest
from lavin_dit.errors import InputError
from lavin_dit.training_config import LoadingConfig

GIB = 2**30


@dataclass(frozen=True)
class OpenShards:
    """One split of a set, and the cache that its shards are read through where they are remote."""

    shards: ShardSet
    cache: ShardCache | None


@contextmanager
def open_shards(folder: Path, split: str, loading: LoadingConfig | None, *, setting: str) -> Iterator[OpenShards]:
    """One split of a folder's set, whose shards are read in place or from where `loading` says, which is what `setting` names.

    Raises: InputError where the set there is another one or storage refuses, StorageError where it does not answer.
    """
    if loading:
        cache = CacheFolder(cache_home(), int(loading.cache_gib * GIB))
        with open_remote(loading.location, folder, split, cache, setting=f"{setting}.location") as remote:
            yield remote
    else:
        with ShardSet(folder, split) as shards:
            yield OpenShards(shards, None)


@contextmanager
def open_remote(
    url: str, folder: Path, split: str, cache: CacheFolder, *, setting: str, retry_delays_s: Collection[float] = RETRY_DELAYS_S
) -> Iterator[OpenShards]:
    """One split of a folder's set, whose shards come from an s3:// address. Raises: as `open_shards`."""
    beginning = f"{split}/"
    hashes = {name.removeprefix(beginning): sha256 for name, sha256 in read_manifest(folder).files.items() if name.startswith(beginning)}
    _check_manifest(Bucket(url, setting=setting), folder, retry_delays_s)
    with (
        ShardCache(Bucket(f"{url.rstrip('/')}/{split}", setting=setting), hashes, cache, retry_delays_s=retry_delays_s) as shard_cache,
        ShardSet(folder, split, locate=shard_cache.locate) as shards,
    ):
        yield OpenShards(shards, shard_cache)


def cache_home() -> Path:
    """Where caches of shards lie: on this machine, shared by all of a user's processes, and never among outputs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lavin" / "shards"


def _check_manifest(bucket: Bucket, folder: Path, retry_delays_s: Collection[float]) -> None:
    with TemporaryDirectory() as scratch:
        there = Path(scratch) / MANIFEST_NAME
        patiently(lambda: bucket.fetch(MANIFEST_NAME, there), retry_delays_s)
        if there.read_bytes() != (folder / MANIFEST_NAME).read_bytes():
            raise InputError(f"{bucket.url}/{MANIFEST_NAME}: is not that of {folder}, the set to be trained on; upload that one")
