"""How the data folder stands: what changed since the last commit, whether that was added and committed, and whether it was pushed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.data_version import hash_listing
from components.dataset_changes import Changes, Group, find_changes
from components.dataset_checkout import Checkout
from components.dataset_versions import Objects, Version, version_at, version_here
from components.entry import StepFailedError
from lavin_dit.errors import InputError

HEAD = "HEAD"


@dataclass(frozen=True)
class Status:
    """How the data stand."""

    changes: Mapping[Group, Changes]
    """From the last commit to the files that lie there now."""
    num_files: int
    is_added: bool
    """Whether DVC tracks the files as they are now."""
    is_committed: bool
    """Whether git has what was added last."""
    remote: str
    """Its url, or why it cannot be asked."""
    is_pushed: bool | None
    """Whether the remote has what was added last; None where that is not known."""


def read_status(checkout: Checkout, scratch: Path) -> Status:
    """Reads the files that changed since they were added, and asks the remote for one object.

    Raises: InputError where the folder is absent, or a version is neither in the cache nor in the remote.
    """
    here, output = version_here(checkout, scratch), checkout.output_here()
    committed = checkout.output_at(checkout.commit_of(HEAD)) if checkout.has_commits() else None
    last = version_at(checkout, HEAD, scratch) if committed else Version("nothing", {}, here.place)
    remote, is_pushed = _ask(Objects(checkout, output, scratch), output.md5 if output else None)
    return Status(
        changes=find_changes(last, here),
        num_files=len(here.files),
        is_added=output.md5 == hash_listing(here.files) if output else not here.files,
        is_committed=output == committed,
        remote=remote,
        is_pushed=is_pushed,
    )


def _ask(objects: Objects, md5: str | None) -> tuple[str, bool | None]:
    try:
        return objects.remote_url, objects.is_pushed(md5) if md5 else None
    except (InputError, StepFailedError) as error:
        # The rest is worth knowing without a network too.
        return str(error), None
