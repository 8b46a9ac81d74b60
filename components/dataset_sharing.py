"""Brings versions of the data to the DVC remote and back, and refers to data that lie in a bucket of somebody's, without copying them.

DVC copies whole objects and names them by their content, and a folder's listing comes last: a push or pull that was interrupted is gone
on with by the next.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from components.data_version import hash_listing
from components.dataset_checkout import Checkout
from components.dvc_files import FOLDER_MD5, SUFFIX
from components.dvc_storage import LocalDvc, Storage
from components.entry import StepFailedError
from lavin_dit.data.raw.pairs import TASK_NAME
from lavin_dit.errors import InputError

IMPORTED = "imported"
UNSAVED = re.compile(r"unsaved files")
NO_REMOTE = re.compile(r"no remote specified|config file error")
NO_SUCH_URL = re.compile(r"does not exist|missing data '?source|NoSuchBucket|[Nn]o such file|unable to read|Unsupported URL")


@dataclass(frozen=True)
class Reference:
    """Data in a bucket that the repository refers to."""

    path: PurePosixPath
    """Where `pull` puts them, below the root of the repository."""
    url: str
    md5: str
    """Of the list of objects with their ETags, when it was imported."""
    num_files: int


def push(checkout: Checkout, *, every_version: bool) -> str:
    """Pushes the data that were added last, or all that any commit of this repository means; returns what DVC says of it.

    Raises: InputError where nothing was added or there is no remote; StepFailedError where something else failed.
    """
    if checkout.output_here() is None:
        raise InputError(f"{checkout.path}: is not tracked yet; `lavin data add` does that")
    return _last_line(_transfer(checkout, "push", *(["--all-commits"] if every_version else []), checkout.tracked_name))


def pull(checkout: Checkout, *, force: bool) -> str:
    """Makes the data folder what the present commit says; returns what DVC says of it.

    Raises: InputError where there is no such version or remote, or files would be lost; StepFailedError where something else failed.
    """
    if checkout.output_here() is None:
        raise InputError(f"{checkout.tracked_name}: is not in this commit; there is no version to pull")
    return _last_line(_transfer(checkout, "pull", *(["--force"] if force else []), checkout.tracked_name))


def _transfer(checkout: Checkout, *arguments: str) -> str:
    try:
        return checkout.dvc(*arguments)
    except StepFailedError as error:
        if UNSAVED.search(str(error)):
            raise InputError(
                f"{checkout.path}: holds files that were never added, and the tracked version lacks; "
                f"`lavin data add {checkout.path}` keeps them, `lavin data pull --force` drops them"
            ) from error
        if NO_REMOTE.search(str(error)):
            raise InputError(f"{checkout.root}: has no DVC remote; run `dvc remote add --default NAME s3://…` and commit") from error
        raise


def _last_line(printed: str) -> str:
    return (printed.strip().splitlines() or ["everything is there already"])[-1]


def import_reference(checkout: Checkout, url: str, name: str) -> Reference:
    """Refers to a folder of a bucket as it is now, or, where the repository refers to it already, as it has become.

    Raises: InputError where there is no such folder, or the name is taken; StepFailedError where something else failed.
    """
    if not TASK_NAME.fullmatch(name):
        raise InputError(f"--name {name}: must be at most 40 lower-case letters, digits, - and _")
    path = checkout.path.with_name(IMPORTED) / name
    tracked = checkout.root / f"{path}{SUFFIX}"
    if tracked.is_file() and (known := read_reference(checkout, path)).url != url:
        raise InputError(f"--name {name}: is {known.url} already; name another")
    tracked.parent.mkdir(parents=True, exist_ok=True)
    command = ["update", "--no-download", f"{path}{SUFFIX}"] if tracked.is_file() else ["import-url", "--no-download", url, str(path)]
    _import(checkout, url, command)
    reference = read_reference(checkout, path)
    checkout.git("add", "--", f"{path}{SUFFIX}", str(path.with_name(".gitignore")))
    return reference


def _import(checkout: Checkout, url: str, command: list[str]) -> None:
    try:
        checkout.dvc(*command)
    except StepFailedError as error:
        if NO_SUCH_URL.search(str(error)):
            raise InputError(f"{url}: is no folder of a bucket that can be read from here, such as s3://bucket/pairs ({error})") from error
        raise


def read_reference(checkout: Checkout, path: PurePosixPath) -> Reference:
    """What the repository says of data that it refers to.

    Raises: InputError where it refers to none there, or to a single file.
    """
    tracked = checkout.root / f"{path}{SUFFIX}"
    if not tracked.is_file():
        raise InputError(f"{path}: nothing was imported there; `lavin data import URL` does that")
    dependency: dict[str, Any] = yaml.safe_load(tracked.read_text(encoding="utf-8")).get("deps", [{}])[0]
    if not FOLDER_MD5.fullmatch(str(dependency.get("md5"))):
        raise InputError(f"{path}{SUFFIX}: refers to no folder of a bucket; data are folders, or tars in a folder")
    return Reference(path, str(dependency["path"]), str(dependency["md5"]), int(dependency.get("nfiles", 0)))


def pull_reference(checkout: Checkout, name: str) -> Path:
    """Fetches data that the repository refers to. DVC would take whatever it finds: the bucket is compared with what was imported.

    Raises: InputError where there is no such reference, or the bucket holds something else by now; StepFailedError where something failed.
    """
    reference = read_reference(checkout, checkout.path.with_name(IMPORTED) / name)
    bucket = LocalDvc(checkout.root).bucket(reference.url)
    _check_unchanged(bucket, reference)
    _import(checkout, reference.url, ["pull", "--force", f"{reference.path}{SUFFIX}"])
    folder = checkout.root / reference.path
    try:
        _check_unchanged(bucket, reference)
    except InputError:
        shutil.rmtree(folder)
        raise
    return folder


def _check_unchanged(bucket: Storage, reference: Reference) -> None:
    if hash_listing(bucket.etags(), kind="etag") != reference.md5:
        raise InputError(f"{reference.url}: holds other files than when it was imported; `lavin data import` again takes what it holds now")
