"""The output folder of a step that runs as several processes: the first one makes it, all of them write into it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.folders import atomic_folder, partial_of, step_key, write_json
from lavin_dit.config import Section
from lavin_dit.training.processes import Processes


@contextmanager
def shared_folder(target: Path, config: Section, inputs: Mapping[str, Path], processes: Processes) -> Iterator[Path]:
    """`atomic_folder` for all processes of a run: it appears whole once every one of them is done with it."""
    if not processes.is_first:
        processes.wait()
        yield partial_of(target)
        processes.wait()
    else:
        with atomic_folder(target, key=step_key(config, inputs)) as folder:
            write_json(folder / "config.json", config.model_dump(mode="json"))
            processes.wait()
            yield folder
            processes.wait()
    # Nobody leaves before it is whole: the operator of an elastic job stops the others as soon as one of them has ended well.
    processes.wait()
