"""The output folder of a step that trains in several processes: the first one makes it, all of them write into it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from components.folders import atomic_folder, exclusive, fingerprint, key_of_partial, partial_of, read_json, write_json
from lavin_dit.errors import FULL_DISK, InputError
from lavin_dit.training.agreement import Agreement
from lavin_dit.training.checkpoint_files import CheckpointFolder, DamagedError
from lavin_dit.training.fit import CHECKPOINTS
from lavin_dit.training.identity import differences, identity_of
from lavin_dit.training.object_storage import ObjectStorage
from lavin_dit.training.processes import Processes
from lavin_dit.training_config import TrainingSection

CONFIG_FILE = "config.json"


@contextmanager
def shared_folder(target: Path, config: TrainingSection, inputs: Mapping[str, Path], processes: Processes) -> Iterator[Path]:
    """`atomic_folder` for all processes of a run: it appears whole once every one of them is done with it.

    A run goes on where one of the same identity was killed, whatever else has changed.
    Raises: InputError where checkpoints of another run, or this run's in another place, would be lost, or none can be written, or a
    process would have no sample: before a step does what takes long.
    """
    processes.share(config.batch_size)
    agreement = Agreement(processes, (InputError, OSError))
    with ExitStack() as made:
        agreement.on_first(lambda: made.enter_context(_own_folder(target, config, inputs)))
        yield partial_of(target)
        processes.wait()
    # Nobody leaves before it is whole: the operator of an elastic job stops the others as soon as one of them has ended well.
    processes.wait()


@contextmanager
def _own_folder(target: Path, config: TrainingSection, inputs: Mapping[str, Path]) -> Iterator[Path]:
    """What the first process does for all of them."""
    identity, location = run_identity(config, inputs), config.checkpoints.location
    _keep_other_runs(target, identity)
    _keep_given(target, config)
    with _alone_at(location, identity), atomic_folder(target, key=json.dumps(identity, sort_keys=True)) as folder:
        _keep_left_behind(folder, location, identity)
        write_json(folder / CONFIG_FILE, config.model_dump(mode="json"))
        yield folder


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


def _keep_given(target: Path, config: TrainingSection) -> None:
    """The weights that a run begins from stay: it does not write its own in their place."""
    given = config.initial_weights
    if given and Path(given.path).resolve().is_relative_to(target.resolve()):
        raise InputError(
            f"initial_weights.path is {given.path}: lies where this step writes its own weights ({target}): write them elsewhere"
        )


@contextmanager
def _alone_at(location: str | None, identity: Mapping[str, Any]) -> Iterator[None]:
    """Lets one run at a time keep its checkpoints in a folder that is not its own; another waits its turn.

    Checkpoints stay there when their run has ended, so that another run is refused at once, and waits for none to end.
    """
    with ExitStack() as turn:
        if location is not None and "://" in location:
            # Refuses an address that is none.
            ObjectStorage(location)
        elif location is not None:
            _refuse_taken(location, identity)
            try:
                turn.enter_context(exclusive(Path(location) / CHECKPOINTS))
            except OSError as error:
                if error.errno in FULL_DISK:
                    raise
                raise InputError(f"checkpoints.location is {location}: cannot be written to ({error.strerror})") from error
            _refuse_taken(location, identity)
        yield


def _refuse_taken(location: str, identity: Mapping[str, Any]) -> None:
    _, different = next(_checkpoints(Path(location), identity), (0, []))
    if different:
        raise InputError(
            f"checkpoints.location is {location}: holds checkpoints of another run ({'; '.join(different)}): name another folder, put "
            "them back, or remove this one to begin anew"
        )


def _checkpoints(place: Path, identity: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Steps of the checkpoints at a place, the newest first, and in what their run differs; without those that cannot be read."""
    shelf, here = CheckpointFolder(place), json.loads(json.dumps(identity))
    for step in shelf.steps():
        try:
            there = shelf.facts(step)["identity"]
        except DamagedError:
            continue
        yield step, differences(there, here)


def _keep_left_behind(folder: Path, location: str | None, identity: Mapping[str, Any]) -> None:
    """A run whose checkpoints.location has changed goes on only where its newest checkpoint has moved along."""
    written = folder / CONFIG_FILE
    before = _place(folder, read_json(written)["checkpoints"]["location"]) if written.is_file() else folder / CHECKPOINTS
    now = _place(folder, location)
    if before.resolve() == now.resolve():
        return
    newest, here = (next((step for step, different in _checkpoints(place, identity) if not different), 0) for place in (before, now))
    if newest > here:
        raise InputError(
            f"checkpoints.location is {location or 'null'}: the checkpoints of this run lie in {before}, up to step {newest}: put it back, "
            f"move them to {now}, or remove {before} to begin anew"
        )


def _place(folder: Path, location: str | None) -> Path:
    """Where a run has its checkpoints as files; of object storage they are copies."""
    return folder / CHECKPOINTS if location is None or "://" in location else Path(location)


def _differences(key: str, identity: Mapping[str, Any]) -> str:
    try:
        there = json.loads(key)
    except json.JSONDecodeError:
        there = None
    if not isinstance(there, dict):
        return "one of an earlier version"
    return "; ".join(differences(there, json.loads(json.dumps(identity))))
