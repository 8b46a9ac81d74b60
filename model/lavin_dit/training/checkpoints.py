"""Checkpoints on disk: written beside and renamed, hashed, never a pickle of code; a damaged one is passed over."""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lavin_dit.hashing import file_sha256

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
COMPLETE_FILE = "complete.json"


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints, `step-00000100` each; the newest `keep` stay."""

    folder: Path
    keep: int = 2

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes one checkpoint; the ones before stay whole whatever happens.

        Raises: OSError where the disk is full; nothing is left of the attempt.
        """
        target, partial = self.folder / f"step-{step:08d}", self.folder / f".step-{step:08d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _write(partial, step, state)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._complete()[self.keep :]:
            shutil.rmtree(old)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest checkpoint that is whole; None where there is none."""
        for path in self._complete():
            state = _read(path)
            if state is not None:
                return int(path.name.removeprefix("step-")), state
            logger.warning("%s is damaged: going back to the checkpoint before it", path)
        return None

    def _complete(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def _write(folder: Path, step: int, state: dict[str, Any]) -> None:
    _save_state(folder / STATE_FILE, state)
    facts = {"step": step, "sha256": file_sha256(folder / STATE_FILE)}
    with (folder / COMPLETE_FILE).open("w", encoding="utf-8") as marker:
        json.dump(facts, marker)
        marker.flush()
        os.fsync(marker.fileno())


def _save_state(path: Path, state: dict[str, Any]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch's writer, closing its archive on a full disk, hides the disk's own error behind one of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads((folder / COMPLETE_FILE).read_text(encoding="utf-8"))
        if facts["sha256"] != file_sha256(folder / STATE_FILE):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    state: dict[str, Any] = torch.load(folder / STATE_FILE, weights_only=True, map_location="cpu")
    return state
