"""Adds pairs and photographs to the tracked data: all of them, checked, or nothing.

A task's folder is made anew beside the data, of links to what it holds and copies of what comes, checked there, and put in its place by
renaming. What a killed addition leaves is in DVC's own folder for temporary files, and the next one clears it.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path, PurePosixPath

from components.data_version import hash_listing
from components.dataset_checkout import Checkout
from components.dataset_checks import check_data, find_files
from components.dataset_versions import Objects, scratch_folder, version_here
from components.folders import exclusive
from lavin_dit.config import PrepareConfig
from lavin_dit.data.raw.matching import ROLE_ENDINGS
from lavin_dit.errors import InputError
from lavin_dit.progress import Progress

NEW, OLD = "new", "old"


@dataclass(frozen=True)
class Batch:
    """Files to be added to a task. `replaces` says whether they take the place of others of the same names."""

    path: Path
    task: str
    split: str | None
    replaces: bool


def add_batch(checkout: Checkout, batch: Batch, config: PrepareConfig) -> int:
    """Copies what lies elsewhere into a task's folder and tracks it; returns how many pairs and photographs were checked.

    Raises: InputError naming the file that is refused; nothing has changed then. StepFailedError where DVC failed: the files are there
    then, and `add_here` does the rest.
    """
    files = find_files(batch.path, batch.task, batch.split)
    with _only_writer(checkout):
        _check_nothing_pending(checkout)
        made = checkout.scratch / NEW / batch.task
        _link_tree(checkout.folder / batch.task, made)
        copied = _copy_into(made, files, replaces=batch.replaces)
        with _labels_of(copied, made.parent, checkout.folder):
            num_checked = check_data(made.parent, config, lambda file: file in copied)
        _put(checkout, batch.task)
        _track(checkout)
    return num_checked


def add_here(checkout: Checkout, config: PrepareConfig, scratch: Path) -> int:
    """Checks what was changed in the data folder itself, and tracks it; returns how many pairs and photographs were checked.

    Raises: as `add_batch`.
    """
    with _only_writer(checkout):
        version, output = version_here(checkout, scratch), checkout.output_here()
        objects = Objects(checkout, output, scratch)
        known = objects.listing(output.md5) if output and objects.is_cached(output.md5) else {}
        changed = {checkout.folder / name for name, md5 in version.files.items() if known.get(name) != md5}
        num_checked = check_data(checkout.folder, config, lambda file: file in changed)
        if output is None or output.md5 != hash_listing(version.files):
            _track(checkout)
    return num_checked


def _check_nothing_pending(checkout: Checkout) -> None:
    """A version must not lack what was never pulled, or hold what somebody changed on the way."""
    output = checkout.output_here()
    if output is None:
        return
    with scratch_folder() as scratch:
        files = version_here(checkout, scratch).files
    if hash_listing(files) != output.md5:
        raise InputError(
            f"{checkout.path}: its files are not those of its tracked version; "
            f"`lavin data add {checkout.path}` tracks that, `lavin data pull` undoes it: do one of them first"
        )


def _track(checkout: Checkout) -> None:
    checkout.dvc("add", "--quiet", str(checkout.path))
    ignored = checkout.folder.with_name(".gitignore")
    names = [checkout.tracked_name, *([str(checkout.path.with_name(".gitignore"))] if ignored.is_file() else [])]
    checkout.git("add", "--", *names)


@contextmanager
def _only_writer(checkout: Checkout) -> Iterator[None]:
    """One addition at a time. What a killed one left goes; a folder that it had moved away comes back."""
    with exclusive(checkout.scratch):
        _clear(checkout)
        for name in (OLD, NEW):
            (checkout.scratch / name).mkdir(parents=True)
        try:
            yield
        finally:
            _clear(checkout)


def _clear(checkout: Checkout) -> None:
    for old in (checkout.scratch / OLD).glob("*"):
        if not (checkout.folder / old.name).exists():
            old.rename(checkout.folder / old.name)
    shutil.rmtree(checkout.scratch, ignore_errors=True)


def _link_tree(folder: Path, made: Path) -> None:
    if folder.is_dir():
        shutil.copytree(folder, made, symlinks=True, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # A file system without hard links.
        shutil.copy2(source, target, follow_symlinks=False)


def _copy_into(made: Path, files: Mapping[str, Path], *, replaces: bool) -> dict[Path, Path]:
    """Copies files to their names below a folder; returns where each new one came from."""
    if replaces:
        sides = {_side(PurePosixPath(name)) for name in files}
        for path in [path for path in made.rglob("*") if path.is_file() and _side(PurePosixPath(path.relative_to(made))) in sides]:
            path.unlink()
    copied = {}
    with Progress("copy files", len(files)) as progress:
        for name, file in files.items():
            target = made / name
            if target.exists() and not cmp(file, target, shallow=False):
                raise InputError(f"{file}: is in {made.name}/{name} already, with other content; --replace puts this one in its place")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                copied[target] = file
            progress.advance()
    return copied


def _side(path: PurePosixPath) -> PurePosixPath:
    """What one side of a pair is called, whatever it is made of: a file of any format, or a folder of frames."""
    return path.parent if path.parent.name.endswith(ROLE_ENDINGS) else path.with_suffix("")


@contextmanager
def _labels_of(copied: Mapping[Path, Path], made: Path, folder: Path) -> Iterator[None]:
    """Names files where the person has them, not where they are checked."""
    try:
        yield
    except InputError as error:
        said = str(error)
        for target, file in copied.items():
            said = said.replace(str(target), str(file))
        raise InputError(said.replace(str(made), str(folder))) from error


def _put(checkout: Checkout, task: str) -> None:
    target = checkout.folder / task
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if target.exists():
            target.rename(checkout.scratch / OLD / task)
        (checkout.scratch / NEW / task).rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise InputError(f"{target}: lies on another disk than .dvc/tmp; copy the files there and add {checkout.path}") from error
