"""A person's own repository, whose data folder DVC tracks as one: what git knows of it, and DVC's commands, repeated while it is busy."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO

from components.dvc_files import CONFIG, SUFFIX, Output, find_output
from components.entry import StepFailedError
from components.registry.repository import clean_environment, read_committed, run_git
from lavin_dit.errors import InputError
from lavin_dit.progress import Progress

logger = logging.getLogger(__name__)

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Between the tries, while another process of DVC is at work in the repository."""
CHUNK_BYTES = 2**16
BUSY = re.compile(r"is busy|Unable to acquire lock|[Ll]ock is (?:held|taken)|database is locked")
BAR = re.compile(r"\|(Pushing|Fetching)(?: [a-z0-9 ]*)? +([0-9.]+[kM]?)/([0-9.]+[kM]?) \[")
TOLD_AS = {"Pushing": "push files", "Fetching": "fetch files"}
CONFLICT = "<<<<<<<"
REFUSED = re.compile(r"Forbidden|Access ?Denied|Unable to locate credentials|InvalidAccessKeyId|SignatureDoesNotMatch|credentials")


@dataclass(frozen=True)
class Checkout:
    """A git repository with DVC in it, and the folder of data below it."""

    root: Path
    path: PurePosixPath
    """Of the data, below the root: data/raw."""

    @property
    def folder(self) -> Path:
        """Where the data lie."""
        return self.root / self.path

    @property
    def tracked_name(self) -> str:
        """The file that says which version of the data is meant; git keeps it."""
        return f"{self.path}{SUFFIX}"

    @property
    def scratch(self) -> Path:
        """A folder that neither git nor DVC tracks, on the data's own disk."""
        return self.root / ".dvc" / "tmp" / "lavin-data"

    def git(self, *arguments: str) -> str:
        """What a git command prints.

        Raises: StepFailedError with git's own words.
        """
        return run_git(self.root, *arguments)

    def commit_of(self, revision: str) -> str:
        """The full commit of a branch, tag, or anything else that git understands.

        Raises: InputError where there is none.
        """
        try:
            return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except StepFailedError as error:
            raise InputError(f"revision {revision}: is neither a branch nor a tag nor a commit of {self.root}") from error

    def has_commits(self) -> bool:
        """Whether anything was committed yet."""
        return bool(self.git("rev-list", "--all", "--max-count=1"))

    def output_at(self, commit: str) -> Output | None:
        """Which version of the data a commit means; None where it has none.

        Raises: InputError where DVC tracks it in another way.
        """
        return self._output(read_committed(self.root, commit, self.tracked_name))

    def output_here(self) -> Output | None:
        """Which version of the data was added last, committed or not."""
        file = self.root / self.tracked_name
        return self._output(file.read_text(encoding="utf-8") if file.is_file() else None)

    def _output(self, text: str | None) -> Output | None:
        if text is None:
            return None
        if CONFLICT in text:
            raise InputError(f"{self.tracked_name}: holds a merge conflict; docs/data.md says how two versions are merged")
        return find_output([self.tracked_name], lambda _: text, self.path)

    def dvc(self, *arguments: str) -> str:
        """What a DVC command prints. While another process of DVC is at work, it is tried again, for two minutes.

        Raises: InputError where the remote refuses the keys; StepFailedError with DVC's own words where something else failed.
        """
        for pause_s in (*PAUSES_S, None):
            done = _run_dvc(self.root, arguments)
            if not done.returncode:
                return done.stdout
            if pause_s is None or not BUSY.search(done.stderr):
                break
            logger.info("dvc %s: another process is at work here; trying again in %.0f s", arguments[0], pause_s)
            time.sleep(pause_s)
        raise _failure(arguments[0], done.stderr)


def open_checkout(folder: Path) -> Checkout:
    """The repository that a folder of data, which need not be there, belongs to.

    Raises: InputError where it belongs to none, or to one without DVC.
    """
    place = folder.absolute()
    root = next((parent for parent in place.parents if (parent / CONFIG).is_file()), None)
    if root is None:
        raise InputError(f"{folder}: lies in no DVC repository; run `git init` and `dvc init` in the project's folder first")
    if not (root / ".git").exists():
        raise InputError(f"{root}: has DVC, but is no git repository; versions of data are commits, run `git init` there first")
    path = PurePosixPath(place.relative_to(root))
    if ".." in path.parts:
        raise InputError(f"{folder}: must be a plain path inside of the repository, such as data/raw")
    return Checkout(root, path)


def _run_dvc(root: Path, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    environment = {**clean_environment(root), "DVC_NO_ANALYTICS": "1", "DVC_IGNORE_ISATTY": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-P", "-m", "dvc", *arguments]
    # A listing is longer than a pipe, which nobody reads before the command ends.
    with TemporaryFile() as printed:
        with subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            said = _follow(process.stderr)
        printed.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, printed.read().decode(errors="replace"), said)


def _follow(stream: IO[bytes]) -> str:
    """Tells how far the command is, from the bars that it draws; returns the end of what it said."""
    said = b""
    with ExitStack() as stack:
        progress = None
        while chunk := os.read(stream.fileno(), CHUNK_BYTES):
            said = (said + chunk)[-CHUNK_BYTES:]
            for verb, done, total in BAR.findall(chunk.decode(errors="replace")):
                if progress is None or progress.total != _number(total):
                    stack.close()
                    progress = stack.enter_context(Progress(TOLD_AS[verb], _number(total)))
                if _number(done) > progress.done:
                    progress.move_to(_number(done))
    return said.decode(errors="replace")


def _number(text: str) -> int:
    """What a bar shortens: 1.25k is 1250."""
    return round(float(text.rstrip("kM")) * {"k": 1e3, "M": 1e6}.get(text[-1], 1.0))


def _failure(name: str, said: str) -> Exception:
    lines = [line.strip() for line in re.split(r"[\r\n]+", said) if line.strip()]
    telling = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["no reason given"]
    reason = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", " ".join(telling)).replace("ERROR: ", "")
    if REFUSED.search(said):
        return InputError(
            f"dvc {name}: the remote refuses the keys, or needs some ({reason}); they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return StepFailedError(f"dvc {name} failed ({reason}); run it again when that is mended")
