"""What DVC writes into a git repository and into a remote, read as plain text: an output's hash, the remote, the listing of a folder.

The repository is somebody's, so DVC itself never opens it: its imports, templates, paths of credentials and settings take no effect.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any
from urllib.parse import urlsplit

import yaml
from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

from lavin_dit.errors import InputError

CONFIG = ".dvc/config"
LOCK = "dvc.lock"
SUFFIX = ".dvc"
FOLDER_MD5 = re.compile(r"[0-9a-f]{32}\.dir")
FILE_MD5 = re.compile(r"[0-9a-f]{32}")
OBJECT_STORE = "s3"

Read = Callable[[str], str | None]
"""The text of one of the repository's files; None where there is none."""


@dataclass(frozen=True)
class Output:
    """A folder that DVC tracks."""

    md5: str
    remote: str | None
    """The remote that it alone lies in; None for the repository's own."""


@dataclass(frozen=True)
class Remote:
    """Where DVC keeps what it tracks. Keys are never part of it."""

    url: str
    endpoint: str | None = None
    region: str | None = None

    @property
    def is_object_store(self) -> bool:
        """Whether it is elsewhere, and not a folder of this machine."""
        return self.url.startswith(f"{OBJECT_STORE}://")


def object_place(md5: str) -> str:
    """Where a remote keeps the object of a hash, below its url."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def dvc_root(names: Iterable[str], path: PurePosixPath) -> PurePosixPath | None:
    """The folder of the DVC repository that a path belongs to; None where it belongs to none."""
    known = set(names)
    return next((folder for folder in path.parents if str(folder / CONFIG) in known), None)


def find_output(names: Iterable[str], read: Read, path: PurePosixPath) -> Output:
    """The tracked output at a path, among `.dvc` files and the stages of a `dvc.lock` in the folders above it.

    Raises: InputError where DVC does not track the path as one folder.
    """
    for name in sorted(names):
        file = PurePosixPath(name)
        if file.parent in path.parents and (file.suffix == SUFFIX or file.name == LOCK):
            for folder, entry in _outputs(file, read(name)):
                if normpath(folder / _text(entry.get("path"))) == str(path):
                    return _checked(entry, path)
    raise InputError(f"{path}: is not tracked by DVC there; run `dvc add {path}`, `dvc push`, and commit {path}{SUFFIX}")


def _outputs(file: PurePosixPath, text: str | None) -> Iterator[tuple[PurePosixPath, dict[str, Any]]]:
    try:
        document = yaml.safe_load(text or "")
    except (yaml.YAMLError, RecursionError):
        return
    stages = _mapping(_mapping(document).get("stages")).values() if file.name == LOCK else [document]
    for stage in map(_mapping, stages):
        outs = stage.get("outs")
        for entry in outs if isinstance(outs, list) else ():
            yield file.parent / _text(stage.get("wdir")), _mapping(entry)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    # Nothing else is turned into text: a few lines of YAML can stand for more of it than any memory holds.
    return value if isinstance(value, str) else ""


def _checked(entry: dict[str, Any], path: PurePosixPath) -> Output:
    md5, remote = _text(entry.get("md5")), _text(entry.get("remote"))
    if FILE_MD5.fullmatch(md5):
        raise InputError(f"{path}: DVC tracks it as a single file; it must be a folder")
    if not FOLDER_MD5.fullmatch(md5):
        raise InputError(f"{path}: DVC has no md5 of it; versioned buckets are not supported, use a standard remote")
    if entry.get("hash") != "md5":
        raise InputError(f"{path}: was tracked by DVC 2; run `dvc cache migrate --dvc-files`, `dvc push`, and commit")
    return Output(md5, remote or None)


def read_remote(text: str, name: str | None, *, folder: Path | None) -> Remote:
    """The remote of that name, or else the default one, as `.dvc/config` describes it; of its settings, only where it is.

    `folder` is where a local repository has its `.dvc`: only such a one may have its remote in another folder here.
    Raises: InputError where there is no such remote, or it is of another kind.
    """
    try:
        sections = ConfigObj(text.splitlines(), interpolation=False, list_values=False, raise_errors=True)
    except ConfigObjError as error:
        raise InputError(f"{CONFIG}: cannot be read ({error})") from error
    wanted = name or _unquoted(_mapping(sections.get("core")).get("remote", ""))
    if not wanted:
        raise InputError(f"{CONFIG}: names no default remote; run `dvc remote default NAME` and commit")
    settings = next((_mapping(value) for key, value in sections.items() if _remote_name(key) == wanted.lower()), {})
    if not settings.get("url"):
        raise InputError(f"{CONFIG}: has no remote {wanted} with a url; run `dvc remote add {wanted} s3://…` and commit")
    options = {key: _unquoted(settings[key]) for key in ("url", "endpointurl", "region") if key in settings}
    if any(_unquoted(settings.get(key, "")).lower() in ("true", "yes", "on", "1") for key in ("version_aware", "worktree")):
        raise InputError(f"{CONFIG}: remote {wanted} keeps versions in the bucket; use a standard remote")
    return Remote(_place(options["url"], wanted, folder), options.get("endpointurl"), options.get("region"))


def _remote_name(section: str) -> str | None:
    match = re.fullmatch(r"remote\s+\"(.+)\"", section.strip("'"))
    return match[1].lower() if match else None


def _unquoted(value: object) -> str:
    return str(value).strip().strip("\"'")


def _place(url: str, name: str, folder: Path | None) -> str:
    parts = urlsplit(url)
    if parts.scheme == OBJECT_STORE and parts.netloc and "@" not in parts.netloc and ".." not in PurePosixPath(parts.path).parts:
        return url.rstrip("/")
    if not parts.scheme and folder:
        return str((folder / url).resolve())
    told = f"{parts.scheme}://…" if parts.scheme else "a folder of its own machine"
    raise InputError(f"{CONFIG}: remote {name} is {told}; data are read from {OBJECT_STORE}://bucket/prefix")


def read_listing(content: bytes, md5: str) -> dict[str, str]:
    """The files of a tracked folder with the md5 of each, as DVC keeps them in the object named by the folder's own md5.

    Raises: InputError where the object is damaged, or a name leads out of the folder.
    """
    if f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir" != md5:
        raise InputError(f"data {md5}: their listing in the DVC remote is damaged; delete it there and `dvc push` again")
    try:
        files = {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"data {md5}: their listing in the DVC remote is no listing") from error
    for name, hashed in files.items():
        parts = name.split("/")
        is_inside = not any(part in ("", ".", "..") or "\0" in part for part in parts)
        is_file = not any("/".join(parts[:depth]) in files for depth in range(1, len(parts)))
        if not (is_inside and is_file and FILE_MD5.fullmatch(hashed)):
            raise InputError(f"data {md5}: their listing names {name!r}, which is no plain file inside of a folder")
    return files
