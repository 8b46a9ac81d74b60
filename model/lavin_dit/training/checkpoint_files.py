"""Checkpoints as folders: which are complete, which are whole, which stay. A marker with every file's hash is written last."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lavin_dit.hashing import file_sha256
from lavin_dit.training_config import CheckpointConfig

FACTS_FILE = "facts.json"
MARKER_FILE = "complete.json"
STEP_NAME = re.compile(r"step-(\d{8,})")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


class DamagedError(Exception):
    """A checkpoint that is not whole; says what is wrong with it."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint, as its marker lists it."""

    name: str
    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "StoredFile":
        return cls(path.name, path.stat().st_size, file_sha256(path))


class Shelf(Protocol):
    """Where checkpoints stand: a folder, or object storage."""

    def steps(self) -> list[int]:
        """Those with a marker, the newest first."""
        ...

    def facts(self, step: int) -> dict[str, Any]:
        """What was written beside the tensors. Raises: DamagedError where it cannot be read."""
        ...

    def remove(self, step: int) -> None:
        """Takes a checkpoint away; at no moment does half of one look whole."""
        ...


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's name; None for another name."""
    found = STEP_NAME.fullmatch(name)
    return int(found[1]) if found else None


def to_keep(scores: Mapping[int, float], config: CheckpointConfig) -> set[int]:
    """Which of the checkpoints with these scores stay: the newest, those of set steps, and the one with the lowest score."""
    kept = set(sorted(scores)[-config.keep_last :])
    if config.keep_every_steps:
        kept |= {step for step in scores if step % config.keep_every_steps == 0}
    if config.keep_best and scores:
        kept.add(min(scores, key=lambda step: (scores[step], step)))
    return kept


def remove_surplus(shelf: Shelf, config: CheckpointConfig) -> None:
    """Removes the checkpoints that do not stay."""
    scores = {step: _score(shelf, step) for step in shelf.steps()}
    for step in scores.keys() - to_keep(scores, config):
        shelf.remove(step)


def _score(shelf: Shelf, step: int) -> float:
    try:
        score = shelf.facts(step).get("score")
    except DamagedError:
        score = None
    return float(score) if isinstance(score, int | float) and not math.isnan(score) else math.inf


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder of checkpoints; what is half-made or half-removed in it has a hidden name."""

    folder: Path

    def path(self, step: int) -> Path:
        return self.folder / step_name(step)

    def hidden(self, step: int, state: str) -> Path:
        return self.folder / f".{step_name(step)}.{state}"

    def steps(self) -> list[int]:
        found = (step_of(marker.parent.name) for marker in self.folder.glob(f"step-*/{MARKER_FILE}"))
        return sorted((step for step in found if step is not None), reverse=True)

    def facts(self, step: int) -> dict[str, Any]:
        return parse_facts(_read(self.path(step) / FACTS_FILE), step)

    def remove(self, step: int) -> None:
        self.set_aside(step, "removed")
        shutil.rmtree(self.hidden(step, "removed"), ignore_errors=True)

    def set_aside(self, step: int, state: str) -> None:
        """Gives a checkpoint a hidden name."""
        shutil.rmtree(self.hidden(step, state), ignore_errors=True)
        self.path(step).rename(self.hidden(step, state))

    def publish(self, step: int, partial: Path) -> None:
        """Gives a complete folder its name; one that had it before goes, and comes back should this be interrupted."""
        if self.path(step).exists():
            self.set_aside(step, "replaced")
        partial.rename(self.path(step))
        _sync_folder(self.folder)
        shutil.rmtree(self.hidden(step, "replaced"), ignore_errors=True)

    def tidy(self) -> None:
        """Clears away what a killed run left half-done; what was found damaged stays for whoever wants to know why."""
        for path in self.folder.glob(".step-*"):
            whole, _, state = path.name.removeprefix(".").partition(".")
            if state == "replaced" and not (self.folder / whole).exists():
                path.rename(self.folder / whole)
            elif state != "damaged":
                shutil.rmtree(path, ignore_errors=True)


def write_durably(path: Path, value: Any) -> None:
    """Writes a JSON file that is on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file, named_errors(path):
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Names the file in an error of the system that does not."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_marker(folder: Path, files: Iterable[StoredFile]) -> None:
    """Says that a folder is complete; its other files must be on the disk by now."""
    _sync_folder(folder)
    listed = {file.name: asdict(file) for file in files}
    write_durably(folder / MARKER_FILE, {"files": [listed[name] for name in sorted(listed)]})
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_marker(text: bytes) -> list[StoredFile]:
    """The files that a marker lists.

    Raises: DamagedError where it is no marker, or a name in it is not that of a plain file.
    """
    try:
        files = [StoredFile(str(entry["name"]), int(entry["num_bytes"]), str(entry["sha256"])) for entry in json.loads(text)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{MARKER_FILE} cannot be read") from error
    for file in files:
        if not (PLAIN_NAME.fullmatch(file.name) and SHA256.fullmatch(file.sha256)) or file.name == MARKER_FILE:
            raise DamagedError(f"{MARKER_FILE} lists {file.name!r}, which is not a plain file")
    if FACTS_FILE not in {file.name for file in files}:
        raise DamagedError(f"{MARKER_FILE} does not list {FACTS_FILE}")
    return files


def parse_facts(text: bytes, step: int) -> dict[str, Any]:
    """The facts of a checkpoint.

    Raises: DamagedError where they are not those of this step.
    """
    try:
        facts = json.loads(text)
        if facts["step"] != step or not isinstance(facts["facts"], dict) or not isinstance(facts["identity"], dict):
            raise DamagedError(f"{FACTS_FILE} is not that of step {step}")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{FACTS_FILE} cannot be read") from error
    return dict(facts)


def verify(folder: Path, *, rank: int = 0, world_size: int = 1) -> None:
    """Checks that a checkpoint holds what its marker lists and nothing else; of the contents, this process's share.

    Raises: DamagedError naming the first file that is wrong.
    """
    files = parse_marker(_read(folder / MARKER_FILE))
    stray = {path.name for path in folder.iterdir()} - {file.name for file in files} - {MARKER_FILE}
    if stray:
        raise DamagedError(f"{min(stray)} is not listed in {MARKER_FILE}")
    for index, file in enumerate(files):
        _check(folder / file.name, file, reads=index % world_size == rank)


def is_whole(folder: Path) -> bool:
    """Whether a folder is a checkpoint without damage."""
    try:
        verify(folder)
    except DamagedError:
        return False
    return True


def _check(path: Path, file: StoredFile, *, reads: bool) -> None:
    try:
        if path.is_symlink() or not path.is_file():
            raise DamagedError(f"{file.name} is missing")
        if path.stat().st_size != file.num_bytes:
            raise DamagedError(f"{file.name} has {path.stat().st_size} bytes instead of {file.num_bytes}")
        if reads and file_sha256(path) != file.sha256:
            raise DamagedError(f"{file.name} has another content than {MARKER_FILE} says")
    except OSError as error:
        raise DamagedError(f"{file.name} cannot be read: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read: {error.strerror}") from error
