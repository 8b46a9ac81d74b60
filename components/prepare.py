"""prepare: renders scenes and clips, reads the user's files and published data sets, and writes tar shards with an index and a manifest."""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from components.code_version import source_hash
from components.entry import StepFailedError
from components.folders import atomic_folder, step_key, write_json
from lavin_dit.config import PrepareConfig
from lavin_dit.data.preparing.making import Workshop
from lavin_dit.data.preparing.material import Material, count_material, find_material, num_clips
from lavin_dit.data.preparing.skipping import Loss, check_losses, list_losses
from lavin_dit.data.preparing.work import Work, plan_work
from lavin_dit.data.preparing.workers import usable_cpus, write_parts
from lavin_dit.data.shards.index import INDEX_OF_MEDIUM, STEM_OF_MEDIUM
from lavin_dit.data.shards.packing import pack
from lavin_dit.data.shards.shard_set import MANIFEST_NAME, SPLITS, Counts, count_pairs, write_manifest

logger = logging.getLogger(__name__)

INPUTS: tuple[str, ...] = ("raw",)
OUTPUTS: tuple[str, ...] = ("shards",)

PARTS_NAME = "parts"
MIB = 2**20


def run(config: PrepareConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    """Prepares the data set; the same section and the same raw data give the same bytes. A killed run is gone on with.

    Raises: InputError naming the parameter or the file that does not fit.
    """
    material = check(config, inputs["raw"])
    key = hashlib.sha256(f"{step_key(config, inputs)} {source_hash()}".encode()).hexdigest()
    with atomic_folder(outputs["shards"], key=key) as folder:
        if not (folder / MANIFEST_NAME).exists():
            _make(config, material, inputs["raw"], folder)
        shutil.rmtree(folder / PARTS_NAME, ignore_errors=True)


def check(config: PrepareConfig, raw: Path) -> Material:
    """Refuses within a moment what could not be prepared: tasks that do not exist, files that do not follow the layout, no data at all.

    Raises: InputError naming the parameter or the file.
    """
    return find_material(config, raw)


def count_scenes(config: PrepareConfig, material: Material) -> Counts:
    """How many scenes of each task `run` will write at most, by split."""
    return count_material(config, material)


def _make(config: PrepareConfig, material: Material, raw: Path, folder: Path) -> None:
    """The manifest comes last: with it, all is there."""
    parts = folder / PARTS_NAME
    for path in (parts, *(folder / split for split in SPLITS)):
        path.mkdir(exist_ok=True)
    workshop, works = Workshop(config, raw, parts), plan_work(config, material)
    try:
        write_parts(workshop, works, num_workers=usable_cpus())
    except BrokenProcessPool as error:
        raise StepFailedError(
            "a process that was preparing data was ended by the system, perhaps for want of memory; run again to go on"
        ) from error
    losses = list_losses(workshop, works, material)
    check_losses(workshop, works, losses)
    sha256 = _pack(config, workshop, works, folder)
    counts, _ = count_pairs(folder)
    _report(config, folder, counts, losses)
    write_manifest(
        folder, resolution=config.resolution, clip_frames=config.clip_frames, held_out_tasks=config.held_out_tasks, sha256=sha256
    )


def _report(config: PrepareConfig, folder: Path, counts: Counts, losses: Sequence[Loss]) -> None:
    for task, numbers in sorted(counts.items()):
        if not numbers["test"]:
            logger.warning("%s: has no held-out pairs and cannot be measured", task)
    for loss in losses:
        logger.warning("left out: %s", loss.reason)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "metrics.json", _metrics(config, counts, losses))
    if config.on_bad == "skip":
        write_json(folder / "skipped.json", [asdict(loss) for loss in losses])


def _metrics(config: PrepareConfig, counts: Counts, losses: Sequence[Loss]) -> dict[str, object]:
    totals = {split: sum(numbers[split] for numbers in counts.values()) for split in SPLITS}
    clips = num_clips(config)
    return {"pairs": totals, "tasks": counts, "skipped": len(losses)} | ({"clips": clips} if any(clips.values()) else {})


def _pack(config: PrepareConfig, workshop: Workshop, works: Sequence[Work], folder: Path) -> dict[str, str]:
    """Sha256 by the names of the files."""
    sha256: dict[str, str] = {}
    for split in SPLITS:
        for medium, stem in STEM_OF_MEDIUM.items():
            parts = [workshop.files_of(work) for work in works if (work.split, work.medium) == (split, medium)]
            if parts or medium == "image":
                names = {"stem": stem, "index_name": INDEX_OF_MEDIUM[medium]}
                packed = pack(parts, folder / split, **names, shard_bytes=int(config.shard_mib * MIB))
                sha256 |= {f"{split}/{name}": digest for name, digest in packed.items()}
    return sha256
