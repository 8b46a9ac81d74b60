"""Step: checks the whole configuration against itself and the data, and hands every step its own section."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from components.code_version import source_hash
from components.data_version import data_hash
from components.folders import atomic_folder, step_key, write_json
from lavin_dit.config import SECTIONS, Config
from lavin_dit.data.tasks import TASKS
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

INPUTS = ("raw",)
OUTPUTS = ("plan",)


def run(config: Config, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Refuses what cannot work, in seconds; writes `plan.json`, `data.json` and a section file for every step.

    Raises: InputError naming the parameter or folder.
    """
    own = own_folders(inputs["raw"])
    check(config, own)
    with atomic_folder(outputs["plan"], key=step_key(config, {})) as folder:
        data = {"hash": data_hash(inputs["raw"])}
        write_json(folder / "data.json", data)
        for step in SECTIONS:
            write_json(folder / f"{step}.json", getattr(config, step).model_dump(mode="json"))
        write_json(folder / "plan.json", {"config": config.model_dump(mode="json"), "data": data, "source_sha256": source_hash()})
    scenes = f"{config.prepare.num_train_scenes} + {config.prepare.num_test_scenes} rendered scenes"
    logger.info("plan: %d tasks, %s, %s", len(config.prepare.tasks), scenes, f"folders {', '.join(own)}" if own else "no data of your own")


def own_folders(raw: Path) -> list[str]:
    """Names of the user's folders under data/raw; an absent one holds none.

    Raises: InputError where it cannot be listed.
    """
    if not raw.exists():
        return []
    try:
        with os.scandir(raw) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{raw}: cannot be listed ({error.strerror}); it must be a readable folder, or absent") from error


def check(config: Config, own: Iterable[str]) -> None:
    """Everything that one section cannot know of another, or of the data.

    Raises: InputError naming the parameter, its value and what is allowed.
    """
    tasks = {*config.prepare.tasks, *own}
    _check_names("prepare.tasks", config.prepare.tasks, TASKS)
    _check_names("train_dit.task_weights", config.train_dit.task_weights, tasks)
    for bound in config.gate.bounds:
        _check_names(f"gate.bounds.{bound}", [bound.partition("/")[0]], tasks)
    if not own:
        _check_scenes(config)
    if config.gate.min_tasks_beating_baselines > len(tasks):
        raise InputError(
            f"gate.min_tasks_beating_baselines is {config.gate.min_tasks_beating_baselines}: there are only {len(tasks)} tasks"
        )


def _check_names(parameter: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"{parameter} names {', '.join(unknown)}: must be among {', '.join(sorted(known))}")


def _check_scenes(config: Config) -> None:
    # A query is a scene of its own, beside those of its context; evaluation takes both from held-out scenes.
    wanted = {
        "train_dit.max_pairs": ("num_train_scenes", config.train_dit.max_pairs),
        "evaluate.sampling.num_pairs": ("num_test_scenes", config.evaluate.sampling.num_pairs),
        "export.sampling.num_pairs": ("num_test_scenes", config.export.sampling.num_pairs),
    }
    for parameter, (scenes, number) in wanted.items():
        available = getattr(config.prepare, scenes)
        if available < number + 1:
            raise InputError(
                f"{parameter} is {number}: needs prepare.{scenes} of at least {number + 1}, which is {available}, "
                "where there is no data of your own"
            )
