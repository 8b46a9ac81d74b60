"""The user's data by their hash: where they are to be had, and fetched from a DVC remote."""

import logging
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from components.data_version import data_hash, file_md5, hash_tree
from components.dvc_files import CONFIG, FOLDER_MD5, Remote, dvc_root, find_output, read_listing, read_remote
from components.dvc_storage import Storage
from components.folders import atomic_folder, exclusive, read_json, write_json
from components.git_remote import GitRemote
from components.registry.repository import read_committed, run_git
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Located:
    """Data that a git repository tracks with DVC, at one commit."""

    repository: str
    revision: str
    commit: str
    path: str
    md5: str
    remote: Remote


@dataclass(frozen=True)
class Source:
    """Where the data of a hash are to be had."""

    md5: str
    folder: Path
    """The folder itself, or where it will be fetched to."""
    located: Located | None
    """None for a plain folder, which nobody has to fetch."""


def locate(repository: str, revision: str, path: str) -> Located:
    """Finds a tracked folder at a branch, tag or commit of a git repository; reads that one commit, without its history.

    Raises: InputError where there is no such repository, revision or tracked folder, or the credentials do not suffice;
    StepFailedError where the network failed again and again.
    """
    wanted = PurePosixPath(path)
    if wanted.is_absolute() or ".." in wanted.parts or not wanted.parts:
        raise InputError(f"data {path}: must be a path inside of the repository, such as data/raw")
    origin = GitRemote(repository)
    with tempfile.TemporaryDirectory(prefix="lavin-git-") as scratch:
        checkout = Path(scratch) / "repository"
        commit = origin.fetch(revision, checkout)
        names = run_git(checkout, "ls-tree", "-r", "-z", "--name-only", commit).split("\0")
        root = dvc_root(names, wanted)
        if root is None:
            raise InputError(f"{origin.address} at {commit}: is no DVC repository; run `dvc init` and `dvc add {path}`, and commit")
        output = find_output(names, lambda name: read_committed(checkout, commit, name), wanted)
        config = read_committed(checkout, commit, str(root / CONFIG)) or ""
    home = origin.local_folder
    remote = read_remote(config, output.remote, folder=home / root / ".dvc" if home else None)
    return Located(origin.address, revision, commit, str(wanted), output.md5, remote)


def fetched_folder(md5: str, workspace: Path) -> Path:
    """Where tracked data of a hash lie once they are fetched.

    Raises: InputError where that is no hash of a folder.
    """
    if not FOLDER_MD5.fullmatch(md5):
        raise InputError(f"data {md5}: is no hash that DVC gives to a folder")
    return workspace / "data" / md5


def remember(located: Located, workspace: Path) -> None:
    """Remembers where the data of a hash are to be had."""
    _write_note(located.md5, workspace, asdict(located))


def remember_folder(folder: Path, md5: str, workspace: Path) -> None:
    """Remembers that a folder here holds the data of that hash."""
    _write_note(md5, workspace, {"folder": str(folder.resolve())})


def _write_note(md5: str, workspace: Path, told: dict[str, object]) -> None:
    note = _note(md5, workspace)
    with exclusive(note):
        write_json(note, told)


def recall(md5: str, workspace: Path) -> Source:
    """What was remembered of a hash.

    Raises: InputError where nothing was.
    """
    note = _note(md5, workspace)
    if not note.is_file():
        raise InputError(f"data {md5}: nothing is known of them in {note.parent}; run again from the first step")
    told = read_json(note)
    if "folder" in told:
        return Source(md5, Path(told["folder"]), None)
    return Source(md5, fetched_folder(md5, workspace), Located(**told | {"remote": Remote(**told["remote"])}))


def _note(md5: str, workspace: Path) -> Path:
    return fetched_folder(md5, workspace).with_name(f"{md5}.json")


def list_names(located: Located) -> list[str]:
    """The names of a tracked folder's files, read from its listing in the remote.

    Raises: as `fetch` does.
    """
    return list(_listing(located, _open(located.remote)))


def fetch(source: Source, workspace: Path) -> Path:
    """The folder with the data, fetched now where they are not there yet, by one process for all.

    It appears whole and verified; a killed fetch is continued by the next. A plain folder stays where it is.
    Raises: InputError where the remote does not have them, refuses the keys, or has something else, or a plain folder has changed;
    StepFailedError where the network failed again and again.
    """
    located = source.located
    if located is None:
        if data_hash(source.folder) != source.md5:
            raise InputError(f"{source.folder}: its files have changed since the run was checked; run it again")
        return source.folder
    folder = fetched_folder(source.md5, workspace)
    with exclusive(folder):
        if folder.is_dir():
            logger.info("data %s: already fetched, in %s", source.md5, folder)
        else:
            _fetch(located, folder)
    return folder


def _fetch(located: Located, folder: Path) -> None:
    storage = _open(located.remote)
    files = _listing(located, storage)
    logger.info("data %s: fetching %d files from %s", located.md5, len(files), located.remote.url)
    with atomic_folder(folder, key=located.md5) as partial:
        owed = {partial / name: md5 for name, md5 in files.items() if not _is_whole(partial / name, md5)}
        storage.get_all(owed, done=len(files) - len(owed))
        if hash_tree(partial) != located.md5:
            damaged = next((name for name, md5 in files.items() if not _is_whole(partial / name, md5)), None)
            shutil.rmtree(partial)
            raise InputError(f"data {located.md5}: {_told_damage(damaged)}")


def _told_damage(name: str | None) -> str:
    if name is None:
        return "something else was written beside them while they were fetched; run it again"
    return f"{name} is damaged in the DVC remote; delete it there and `dvc push` again"


def _is_whole(file: Path, md5: str) -> bool:
    return file.is_file() and file_md5(file) == md5


def _listing(located: Located, storage: Storage) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="lavin-") as scratch:
        file = Path(scratch) / "listing"
        storage.get(located.md5, file)
        return read_listing(file.read_bytes(), located.md5)


def _open(remote: Remote) -> Storage:
    timeout = {"connect_timeout": CONNECT_TIMEOUT_S} if remote.is_object_store else {}
    return Storage.at(remote.url, **timeout, **remote_options(remote))


def remote_options(remote: Remote) -> dict[str, str]:
    """What DVC is to know of a remote beside its url, under DVC's own names."""
    if not remote.is_object_store:
        return {}
    # Keys belong to the place that their owner names beside them, whatever the repository says.
    is_told = any(os.environ.get(name) for name in ENDPOINT_VARIABLES)
    told = {"region": remote.region, "endpointurl": None if is_told else remote.endpoint}
    return {key: value for key, value in told.items() if value}
