"""What a registry's tags say: versions, and which of them was in which stage when."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from components.registry.repository import is_registry, run_git
from lavin_dit.errors import InputError

FORCED = "Forced: "
ROLLED_BACK = "Rolled-back-from: "
FIELD, RECORD = "\x1f", "\x1e"
TAG_FORMAT = "%1f".join(["%(refname:strip=2)", "%(*objectname)", "%(taggerdate:unix)", "%(contents)"]) + "%1e"


@dataclass(frozen=True)
class Version:
    """A registered bundle. Units: time in seconds since 1970."""

    name: str
    version: str
    commit: str
    time: int
    forced: str | None
    """Why it was let past the gate, if it was."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Assignment:
    """The moment at which a stage got a version. Units: time in seconds since 1970."""

    number: int
    stage: str
    version: str | None
    """None where the stage was emptied, which only GTO's own command does."""
    time: int
    forced: str | None
    rolled_back_from: str | None


@dataclass(frozen=True)
class History:
    """All that a registry's tags say of one name: versions in their order, assignments in theirs."""

    name: str
    versions: tuple[Version, ...]
    assignments: tuple[Assignment, ...]

    def find(self, version: str) -> Version:
        """The version of that number.

        Raises: InputError listing the versions that there are.
        """
        for known in self.versions:
            if known.version == version:
                return known
        there = ", ".join(known.version for known in self.versions) or "none"
        raise InputError(f"{self.name}@{version}: is not registered; registered: {there}")

    def trail(self, stage: str) -> list[str]:
        """The versions that led to what is in the stage now, which comes last: a promotion adds one, a rollback takes some away."""
        trail: list[str] = []
        for assignment in self.assignments:
            if assignment.stage != stage:
                continue
            if assignment.version is None:
                trail.clear()
            elif assignment.rolled_back_from and assignment.version in trail:
                while trail[-1] != assignment.version:
                    trail.pop()
            elif trail[-1:] != [assignment.version]:
                trail.append(assignment.version)
        return trail

    def in_stage(self, stage: str) -> Version | None:
        """The version that is in the stage now."""
        trail = self.trail(stage)
        return self.find(trail[-1]) if trail else None

    def stages_of(self, version: Version) -> tuple[str, ...]:
        """The stages that this version is in now."""
        stages = sorted({assignment.stage for assignment in self.assignments})
        return tuple(stage for stage in stages if self.in_stage(stage) == version)


@dataclass(frozen=True)
class Tag:
    """One of GTO's tags: it registers a version or assigns a stage, or (`is_cancelled`) takes that back."""

    name: str
    version: str | None
    stage: str | None
    number: int
    is_cancelled: bool
    commit: str
    time: int
    message: str

    @classmethod
    def parse(cls, record: str) -> Self | None:
        """None for a tag that is not GTO's, and for one without annotation, which GTO skips too."""
        from gto.tag import parse_name

        tag, commit, time, message = record.split(FIELD)
        parsed = parse_name(tag, raise_on_fail=False)
        if not commit or not ("version" in parsed or "stage" in parsed):
            return None
        is_cancelled = parsed["action"].value in ("deregister", "unassign")
        return cls(
            parsed["name"], parsed.get("version"), parsed.get("stage"), parsed.get("counter", 0), is_cancelled, commit, int(time), message
        )

    def trailer(self, key: str) -> str | None:
        """The rest of the message's last line that starts with `key`."""
        values = [line.removeprefix(key) for line in self.message.splitlines() if line.startswith(key)]
        return values[-1] if values else None


def read_history(folder: Path, name: str) -> History:
    """What the registry knows of a name; nothing where there is no registry yet.

    Raises: InputError where the folder is neither empty nor a registry.
    """
    tags = read_tags(folder, name)
    versions = _versions(tags)
    at_commit = {version.commit: version.version for version in versions}
    assignments = [
        Assignment(
            tag.number,
            tag.stage,
            None if tag.is_cancelled else at_commit[tag.commit],
            tag.time,
            tag.trailer(FORCED),
            tag.trailer(ROLLED_BACK),
        )
        for tag in tags
        if tag.stage and (tag.is_cancelled or tag.commit in at_commit)
    ]
    return History(name, versions, tuple(assignments))


def read_tags(folder: Path, name: str) -> list[Tag]:
    """GTO's tags of a name, in the order of their numbers, which is that in which stages were assigned."""
    if not is_registry(folder) or not (folder / ".git").is_dir():
        return []
    listed = run_git(folder, "for-each-ref", f"--format={TAG_FORMAT}", "refs/tags")
    records = [record.removeprefix("\n") for record in listed.split(RECORD) if record.strip()]
    tags = [tag for tag in map(Tag.parse, records) if tag and tag.name == name]
    return sorted(tags, key=lambda tag: tag.number)


def _versions(tags: list[Tag]) -> tuple[Version, ...]:
    from gto.versions import SemVer

    withdrawn = {tag.version for tag in tags if tag.version and tag.is_cancelled}
    kept = [
        Version(tag.name, tag.version, tag.commit, tag.time, tag.trailer(FORCED))
        for tag in tags
        if tag.version and tag.version not in withdrawn
    ]
    return tuple(sorted(kept, key=lambda version: SemVer(version.version)))


def timestamp(seconds: int) -> str:
    """A moment as people and programs both read it: ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
