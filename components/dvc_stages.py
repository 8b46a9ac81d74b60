"""Enters outputs that were made elsewhere into a checkout's DVC, as if its stages had made them: by DVC's commands, running no stage."""

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.data_version import hash_tree
from components.dvc_files import Remote
from components.entry import StepFailedError
from components.folders import write_text
from components.pod_environment import OBJECT_STORE_SECRET
from components.registry.repository import run_dvc
from components.results import RIVAL_FILE
from components.tracked_data import Located, list_names, remote_options
from lavin_dit.config import load_config
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

RAW = Path("data/raw")
PARAMS = "params.yaml"
LOCK = "dvc.lock"
OUTPUTS = "outputs"
LOCAL_CONFIG = ".dvc/config.local"
OUR_REMOTE = "lavin-record"
REFUSED = re.compile(r"Forbidden|Access ?Denied|Unable to locate credentials|InvalidAccessKeyId|SignatureDoesNotMatch")
"""What DVC says where an object store does."""


def configure(checkout: Path, remote: Remote) -> None:
    """Gives the checkout a cache beside it, and a remote that knows its place but not the settings of whoever set it up."""
    beside = checkout.parent
    sections = {
        "core": {"site_cache_dir": str(beside / "site")},
        "cache": {"dir": str(beside / "cache"), "type": "hardlink,copy"},
        f"'remote \"{OUR_REMOTE}\"'": {"url": remote.url, **remote_options(remote)},
    }
    lines = [line for name, section in sections.items() for line in (f"[{name}]", *(f'{key} = "{section[key]}"' for key in section))]
    write_text(checkout / LOCAL_CONFIG, "\n".join(lines) + "\n")


def place_outputs(outputs: Mapping[str, Path], checkout: Path) -> None:
    """Puts each output where its stage would: by hard links where the file system has them."""
    for output, folder in outputs.items():
        target = checkout / OUTPUTS / output
        shutil.rmtree(target, ignore_errors=True)
        # What the gate compared with is no output of a stage: it depends on the registry, not on the parameters.
        shutil.copytree(folder, target, copy_function=_link, ignore=shutil.ignore_patterns(RIVAL_FILE))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # A file system without hard links.
        shutil.copy2(source, target)


def write_params(config: Any, checkout: Path) -> None:
    """Writes params.yaml; a file that says the same already stays as its author wrote it."""
    params = checkout / PARAMS
    try:
        is_same = load_config(params, []).model_dump(mode="json") == config
    except InputError:
        is_same = False
    if not is_same:
        write_text(params, yaml.safe_dump(config, sort_keys=False))


def track_data(md5: str, remote: Remote, checkout: Path, *, repository: str) -> None:
    """Makes the checkout track the data of that hash, which need not be those that its commit tracks.

    Raises: InputError where the remote does not hold them: a branch whose data nobody can pull would be worth little.
    """
    tracked = checkout / f"{RAW}.dvc"
    if md5 == hash_tree(checkout / RAW):
        # No data at all, or data that lie in git itself.
        tracked.unlink(missing_ok=True)
        return
    list_names(Located(repository, "", "", str(RAW), md5, remote))
    if not tracked.is_file() or yaml.safe_load(tracked.read_text(encoding="utf-8"))["outs"][0].get("md5") != md5:
        tracked.parent.mkdir(exist_ok=True)
        write_text(tracked, yaml.safe_dump({"outs": [{"md5": md5, "hash": "md5", "path": RAW.name}]}, sort_keys=False))


def write_lock(stages: Sequence[str], others: Sequence[str], checkout: Path) -> None:
    """Enters what lies in the outputs of `stages` into dvc.lock and the cache; what the lock says of `others` is of another run, and goes.

    Raises: StepFailedError with DVC's own words.
    """
    lock = checkout / LOCK
    if lock.is_file():
        document = yaml.safe_load(lock.read_text(encoding="utf-8"))
        for stage in others:
            document["stages"].pop(stage, None)
        write_text(lock, yaml.safe_dump(document, sort_keys=False))
    run_dvc(checkout, "commit", "--quiet", "--force", *stages)


def push_outputs(stages: Sequence[str], remote: Remote, checkout: Path) -> None:
    """Pushes what `write_lock` entered.

    Raises: InputError where the keys do not suffice; StepFailedError where something else failed.
    """
    logger.info("record: pushing the results to %s", remote.url)
    try:
        run_dvc(checkout, "push", "--remote", OUR_REMOTE, *stages)
    except StepFailedError as error:
        said = str(error).partition("(")[2].removesuffix(")")
        if REFUSED.search(said):
            raise InputError(
                f"{remote.url}: refuses the keys, or needs some ({said}); on a cluster they come from the Secret {OBJECT_STORE_SECRET}"
            ) from error
        raise StepFailedError(f"{remote.url}: the results could not be pushed there ({said}); record the run again") from error
