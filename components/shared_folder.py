"""The output folder of a step that trains in several processes: the first one makes it, all of them write into it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.folders import atomic_folder, fingerprint, key_of_partial, partial_of, write_json
from lavin_dit.errors import InputError
from lavin_dit.training.checkpoint_files import CheckpointFolder
from lavin_dit.training.fit import CHECKPOINTS
from lavin_dit.training.identity import differences, identity_of
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import TrainingSection


@contextmanager
def shared_folder(target: Path, config: TrainingSection, inputs: Mapping[str, Path], processes: Processes) -> Iterator[Path]:
    """`atomic_folder` for all processes of a run: it appears whole once every one of them is done with it.

    A run goes on where one of the same identity was killed, whatever else has changed.
    Raises: InputError where checkpoints of another run would be lost.
    """
    if not processes.is_first:
        processes.wait()
        yield partial_of(target)
        processes.wait()
    else:
        identity = run_identity(config, inputs)
        _keep_other_runs(target, identity)
        with atomic_folder(target, key=json.dumps(identity, sort_keys=True)) as folder:
            write_json(folder / "config.json", config.model_dump(mode="json"))
            processes.wait()
            yield folder
            processes.wait()
    # Nobody leaves before it is whole: the operator of an elastic job stops the others as soon as one of them has ended well.
    processes.wait()


def run_identity(config: TrainingSection, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """All that decides what a training step comes to: its parameters, without the free ones, and the content of its inputs."""
    return {**identity_of(config), "inputs": {name: fingerprint(folder) for name, folder in inputs.items()}}


def identity_under_way(target: Path) -> dict[str, Any]:
    """The identity of the run that makes a folder, inside `shared_folder`: the first process has read the inputs for all of them."""
    key = key_of_partial(target)
    assert key is not None, "nothing makes this folder"
    identity: dict[str, Any] = json.loads(key)
    return identity


def _keep_other_runs(target: Path, identity: Mapping[str, Any]) -> None:
    partial, key = partial_of(target), key_of_partial(target)
    if key is None or not CheckpointFolder(partial / CHECKPOINTS).steps():
        return
    different = _differences(key, identity)
    if different:
        raise InputError(f"{partial}: holds checkpoints of another run ({different}): put it back, or remove this folder to begin anew")


def _differences(key: str, identity: Mapping[str, Any]) -> str:
    try:
        there = json.loads(key)
    except json.JSONDecodeError:
        there = None
    if not isinstance(there, dict):
        return "one of an earlier version"
    return "; ".join(differences(there, json.loads(json.dumps(identity))))
