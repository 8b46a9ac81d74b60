"""Warnings about a job and what belongs to it, from the events of its namespace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.launcher.observation import JobState, seconds

CREATION_REASONS = ("FailedCreatePod", "FailedCreate")
HARMLESS = ("object is being deleted", "already exists")
"""An operator that makes a pod anew before the old one is gone tries again by itself."""
MEMORY_OF_EVENTS_S = 2.0
"""Events are dated in whole seconds, or by another machine."""


@dataclass(frozen=True)
class Warned:
    """One event."""

    reason: str
    about: str
    message: str

    @property
    def is_refusal(self) -> bool:
        """Whether it says that a pod may not be created."""
        return self.reason in CREATION_REASONS and not any(words in self.message for words in HARMLESS)


def warnings_about(job: JobState, events: Iterable[Mapping[str, Any]]) -> list[Warned]:
    """Each said once; what was said of an earlier job of the same name is left out."""
    found = [_read(event) for event in events if _concerns(job, event)]
    return list(dict.fromkeys(found))


def _concerns(job: JobState, event: Mapping[str, Any]) -> bool:
    about = event.get("involvedObject") or {}
    name = about.get("name") or ""
    if name == job.name and about.get("uid") == job.uid:
        return True
    is_part = name == job.name or name.startswith(f"{job.name}-")
    time = event.get("lastTimestamp") or event.get("eventTime") or (event.get("metadata") or {}).get("creationTimestamp")
    is_recent = not time or seconds(time) >= job.created - MEMORY_OF_EVENTS_S
    return is_part and is_recent and about.get("kind") not in ("PyTorchJob", "TrainJob")


def _read(event: Mapping[str, Any]) -> Warned:
    message = " ".join((event.get("message") or "").split())
    return Warned(event.get("reason") or "", event["involvedObject"].get("name") or "", message)
