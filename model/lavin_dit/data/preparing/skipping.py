"""What was left out of a data set because it could not be read, and how much of it is too much."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavin_dit.data.preparing.making import SKIPPED, Workshop
from lavin_dit.data.preparing.material import Material, tasks_in
from lavin_dit.data.preparing.work import Work
from lavin_dit.data.raw.pairs import PHOTOS
from lavin_dit.errors import InputError

RENDERED = "scenes"
MAX_LOST_SHARE = 0.5


@dataclass(frozen=True)
class Loss:
    """One file, pair or folder that was left out, why, and the tasks that have a pair less by it."""

    label: str
    reason: str
    tasks: tuple[str, ...]


def list_losses(workshop: Workshop, works: Sequence[Work], material: Material) -> tuple[Loss, ...]:
    """All that was left out, in the order in which it was met."""
    photo_folders = {PHOTOS, *(_folder_of(str(photo.source.path), workshop.raw) for photo in material.raw.photos)}
    found: list[Loss] = []
    for skipped in material.raw.skipped:
        folder = _folder_of(skipped.label, workshop.raw)
        restored = tasks_in(workshop.config, "test", lambda task: task.from_photo)
        tasks = restored if folder in photo_folders else (folder,) if folder else ()
        found.append(Loss(skipped.label, skipped.reason, tasks))
    return (*found, *(loss for work in works for loss in _losses_of(workshop, work)))


def check_losses(workshop: Workshop, works: Sequence[Work], losses: Iterable[Loss]) -> None:
    """Raises: InputError naming the first task that lost more than half of the pairs that files were to give it."""
    kept: Counter[str] = Counter()
    for work in works:
        for task, source, count in workshop.files_of(work).open()[1]["groups"]:
            kept[task] += count if source != RENDERED else 0
    lost = Counter(task for loss in losses for task in loss.tasks)
    for task, number in sorted(lost.items()):
        total = number + kept[task]
        if number > MAX_LOST_SHARE * total:
            reason = next(loss.reason for loss in losses if task in loss.tasks)
            raise InputError(f"{task}: {number} of {total} pairs from files cannot be read, more than half; the first reason is: {reason}")


def _losses_of(workshop: Workshop, work: Work) -> Iterator[Loss]:
    for tasks, label, reason in workshop.files_of(work).open()[1][SKIPPED]:
        yield Loss(label, reason, tuple(tasks))


def _folder_of(label: str, raw: Path) -> str:
    """The folder of `raw` that a file lies in, which is a task's own or one of photographs; empty for what lies in none."""
    inside = Path(label).parts[len(raw.parts) :] if Path(label).is_relative_to(raw) else ()
    return inside[0] if inside and (raw / inside[0]).is_dir() else ""
