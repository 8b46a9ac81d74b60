"""The folders that steps read and write: outputs that appear whole, names for their content, and small JSON files."""

import fcntl
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavin_dit.config import section_to_json
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256
from lavin_dit.section import Section

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"


@contextmanager
def atomic_folder(target: Path, *, key: str) -> Iterator[Path]:
    """A folder to write into, beside `target`; at a clean exit it becomes `target` by rename, and an old target goes.

    What a killed or failed run left behind is handed back as it is where it was made for the same `key`, so that a step can
    continue, and wiped otherwise.
    """
    partial, key_file = partial_of(target), _key_file(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if key_of_partial(target) != key:
        # The key goes first: a kill half-way through the wipe must not leave a folder that looks whole.
        key_file.unlink(missing_ok=True)
        _remove(partial)
        write_text(key_file, key)
    partial.mkdir(exist_ok=True)
    yield partial
    _replace(target, partial)
    key_file.unlink(missing_ok=True)


def partial_of(target: Path) -> Path:
    """Where `atomic_folder` collects what is to become `target`."""
    return target.parent / f".{target.name}.partial"


def key_of_partial(target: Path) -> str | None:
    """The key for which a killed or failed run made its partial folder; None where there is none to go on with."""
    key_file = _key_file(target)
    return key_file.read_text(encoding="utf-8") if key_file.is_file() else None


def _key_file(target: Path) -> Path:
    partial = partial_of(target)
    return partial.with_name(f"{partial.name}.key")


def _replace(target: Path, partial: Path) -> None:
    old = target.parent / f".{target.name}.old"
    _remove(old)
    if target.exists() or target.is_symlink():
        target.rename(old)
    partial.rename(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Lets one process at a time make `target`; another waits its turn. A killed process gives its turn up."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for the other process that makes %s", target)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint(folder: Path) -> str:
    """A name for a folder's content: sha256 over the sorted relative paths and the sha256 of each file.

    A folder whose manifest.json lists its files' hashes is named by that one file. An absent folder equals an empty one.
    """
    manifest = folder / MANIFEST_NAME
    if _lists_hashes(manifest):
        return file_sha256(manifest)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _lists_hashes(manifest: Path) -> bool:
    if not manifest.is_file():
        return False
    content = read_json(manifest)
    return isinstance(content, dict) and isinstance(content.get("files"), dict)


def step_key(config: Section, inputs: Mapping[str, Path]) -> str:
    """A name for all that decides a step's result: its section and the content of its inputs."""
    named = {name: fingerprint(folder) for name, folder in inputs.items()}
    return hashlib.sha256(f"{section_to_json(config)}\n{json.dumps(named, sort_keys=True)}".encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a small text file that appears whole: beside, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_json(path: Path, value: Any, *, nan_as_null: bool = False) -> None:
    """Writes canonical JSON (sorted keys, newline at the end) that appears whole.

    `nan_as_null` is for metrics: a value that could not be measured is written as null, and a gate refuses null.
    Raises: ValueError where the value holds a number that is not finite and `nan_as_null` is not set.
    """
    kept = _without_nan(value) if nan_as_null else value
    write_text(path, json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises: InputError naming the file where it is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
