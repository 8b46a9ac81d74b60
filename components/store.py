"""The store: finished step outputs in folders named by all that made them, on a disk that outlives a run.

An output is made inside the store, so that a killed run continues there and a finished one is never made twice. It is then published
to where the runner wants it: small outputs as they are, heavy ones as a file that says where they lie.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.entry import StepFailedError
from components.execution import execute
from components.folders import atomic_folder, exclusive, fingerprint, read_json, write_json
from components.launcher.settings import ONE_PROCESS, JobSettings
from lavin_dit.config import section_to_json
from lavin_dit.errors import InputError
from lavin_dit.section import Section
from lavin_dit.training.identity import identity_of
from lavin_dit.training_config import TrainingSection

logger = logging.getLogger(__name__)

HEAVY = frozenset({"shards"})
"""Outputs that stay in the store."""
LOCATION_NAME = "location.json"
KEY_LENGTH = 16


@dataclass(frozen=True)
class Store:
    """A folder of finished outputs, as one version of the code sees it."""

    folder: Path
    code: str
    """The hash of the code that makes the outputs."""

    def place(self, output: str, section: Section, fingerprints: Mapping[str, str]) -> Path:
        """Where an output lies, or will lie."""
        return self.folder / f"{output}-{store_key(section, fingerprints, self.code)[:KEY_LENGTH]}"


def store_key(section: Section, fingerprints: Mapping[str, str], code: str) -> str:
    """A name for all that decides a step's result: its section, the content of its inputs, and the code."""
    parts = [_decisive(section), json.dumps(dict(fingerprints), sort_keys=True), code]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _decisive(section: Section) -> str:
    """A section without what decides nothing, so that a killed training run goes on in its folder with another layout."""
    return json.dumps(identity_of(section), sort_keys=True) if isinstance(section, TrainingSection) else section_to_json(section)


def produce(
    step: str,
    section: Section,
    inputs: Mapping[str, Path],
    *,
    output: str,
    store: Store,
    known: Mapping[str, str] | None = None,
    job: JobSettings = ONE_PROCESS,
) -> Path:
    """The folder in the store with a step's output, made now where it is not there yet.

    `known` holds the fingerprints of inputs that are too big to read for one, or whose content at the moment is not what counts.
    """
    fingerprints = {name: (known or {}).get(name) or fingerprint(folder) for name, folder in inputs.items()}
    folder = store.place(output, section, fingerprints)
    with exclusive(folder.with_name(f"{folder.name}.store")):
        if folder.exists():
            logger.info("step %s: already done, in %s", step, folder)
            return folder
        if job.is_on_cluster:
            inputs = {name: _on_volume(name, path, fingerprints[name], store) for name, path in inputs.items()}
        execute(step, section, inputs, {output: folder}, job=job)
        if not folder.is_dir():
            raise StepFailedError(f"{step}: its job succeeded, but left nothing in {folder}; do all of its pods mount the same volume?")
    return folder


def _on_volume(name: str, folder: Path, content: str, store: Store) -> Path:
    """The same content where the pods of a job see it: what KFP fetched for this pod alone is copied into the store."""
    if folder.resolve().is_relative_to(store.folder.resolve()):
        return folder
    copy = store.folder / f"input-{name}-{content[:KEY_LENGTH]}"
    with exclusive(copy):
        if not copy.exists():
            with atomic_folder(copy, key=content) as beside:
                shutil.copytree(folder, beside, dirs_exist_ok=True)
    return copy


def publish(folder: Path, target: Path, *, output: str) -> None:
    """Makes `target` stand for a folder of the store: by hard links or copies, or by a location file where it is heavy."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if output in HEAVY:
        write_json(target / LOCATION_NAME, {"folder": str(folder.resolve())})
    else:
        shutil.copytree(folder, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copy2(source, target)
    return target


def open_input(published: Path) -> Path:
    """The folder with the content that `publish` put at a path.

    Raises: InputError where it has been removed from the store.
    """
    location = published / LOCATION_NAME
    if not location.is_file():
        return published
    folder = Path(read_json(location)["folder"])
    if not folder.is_dir():
        raise InputError(f"{folder}: is gone from the store; run again without the cache to make it anew")
    return folder
