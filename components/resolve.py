"""Step: checks the whole configuration against itself and the data, and hands every step its own section."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from components import prepare
from components.code_version import source_hash
from components.data_version import data_hash
from components.folders import atomic_folder, step_key, write_json
from components.prepare import count_scenes
from lavin_dit.config import SECTIONS, Config
from lavin_dit.data.shards.shard_set import SPLITS, Counts
from lavin_dit.data.tasks import task_of
from lavin_dit.errors import InputError
from lavin_dit.planning.weights import check_frozen, dit_weights, vae_weights

logger = logging.getLogger(__name__)

INPUTS = ("raw",)
OUTPUTS = ("plan",)

SPLIT_NAMES = {"train": "training", "test": "held-out"}
REMEDIES = {
    "train": "add pairs, or raise prepare.num_train_scenes",
    "test": "add pairs under its test folder, or raise prepare.test_fraction or prepare.num_test_scenes",
}


def run(config: Config, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Refuses what cannot work, in seconds; writes `plan.json`, `data.json` and a section file for every step.

    Raises: InputError naming the parameter or folder.
    """
    check_data(config, inputs["raw"])
    write_plan(config, data_hash(inputs["raw"]), outputs["plan"])


def check_data(config: Config, raw: Path) -> None:
    """Checks the configuration against itself and the names of the data.

    Raises: InputError naming the parameter or folder.
    """
    scenes = count_scenes(config.prepare, prepare.check(config.prepare, raw))
    check(config, scenes)
    totals = {split: sum(counts[split] for counts in scenes.values()) for split in SPLITS}
    logger.info("plan: %d tasks, %d training pairs, %d held out", len(scenes), totals["train"], totals["test"])


def write_plan(config: Config, content: str, plan: Path) -> None:
    """Writes what every step is to know, for the data of that hash."""
    with atomic_folder(plan, key=step_key(config, {})) as folder:
        data = {"hash": content}
        write_json(folder / "data.json", data)
        for step in SECTIONS:
            write_json(folder / f"{step}.json", getattr(config, step).model_dump(mode="json"))
        write_json(folder / "plan.json", {"config": config.model_dump(mode="json"), "data": data, "source_sha256": source_hash()})


def check(config: Config, scenes: Counts) -> None:
    """Everything that one section cannot know of another, or of the data; `scenes` counts them by task and split.

    Raises: InputError naming the parameter, its value and what is allowed.
    """
    _check_names("train_dit.task_weights", config.train_dit.task_weights, scenes)
    for bound in config.gate.bounds:
        _check_names(f"gate.bounds.{bound}", [bound.partition("/")[0]], scenes)
    _check_frozen(config)
    _check_scenes(config, scenes)
    _tell_untrained(config, scenes)
    if config.gate.min_tasks_beating_baselines > len(scenes):
        raise InputError(
            f"gate.min_tasks_beating_baselines is {config.gate.min_tasks_beating_baselines}: there are only {len(scenes)} tasks"
        )


def _check_frozen(config: Config) -> None:
    """Before the ST-VAE is trained, what the J-DiT's training would refuse after it."""
    for step, section, weights in (
        ("train_vae", config.train_vae, vae_weights(config.train_vae.shape)),
        ("train_dit", config.train_dit, dit_weights(config.train_dit.shape)),
    ):
        check_frozen(section.frozen, {weight.name: weight.trained for weight in weights}, key=f"{step}.frozen")


def _tell_untrained(config: Config, scenes: Counts) -> None:
    if config.train_dit.clips is None:
        untrained = [task for task, counts in scenes.items() if counts["train"] and task_of(task).medium == "clip"]
        if untrained:
            logger.warning("train_dit.clips is null: %s, tasks of clips, are measured but not trained", ", ".join(untrained))


def _check_names(parameter: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"{parameter} names {', '.join(unknown)}: must be among {', '.join(sorted(known))}")


def _pairs_shown(config: Config, task: str) -> dict[str, tuple[str, int]]:
    """Context pairs that each step shows of a task, and the split that it draws them from."""
    is_clip, is_trained = task_of(task).medium == "clip", task not in config.prepare.held_out_tasks
    shown = {"evaluate.sampling.num_pairs": ("test", config.evaluate.sampling.num_pairs)}
    if is_trained and not is_clip:
        shown["train_dit.max_pairs"] = "train", config.train_dit.max_pairs
        shown["export.sampling.num_pairs"] = "test", config.export.sampling.num_pairs
    if is_trained and is_clip and config.train_dit.clips:
        shown["train_dit.clips.max_pairs"] = "train", config.train_dit.clips.max_pairs
    return shown


def _check_scenes(config: Config, scenes: Counts) -> None:
    """A query is a scene of its own, beside those of its context: training draws both from one split, evaluation from the other."""
    for task, counts in scenes.items():
        for parameter, (split, number) in _pairs_shown(config, task).items():
            if counts[split] <= number:
                raise InputError(
                    f"{parameter} is {number}: needs at least {number + 1} {SPLIT_NAMES[split]} scenes of every task, and {task} has "
                    f"{counts[split]}; {REMEDIES[split]}"
                )
