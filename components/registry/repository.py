"""A registry's git repository: one writer at a time, and git and DVC commands that see nothing of the caller's own git or DVC."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from components.entry import StepFailedError
from components.folders import read_json, write_json, write_text
from lavin_dit.errors import InputError

logger = logging.getLogger(__name__)

MARKER_NAME = ".lavin-registry.json"
LOCK_NAME = ".lavin-registry.lock"
BEFORE_MARKER = (LOCK_NAME, f".{MARKER_NAME}.tmp")
"""What a run that was killed at its very start may have left."""
FORMAT = 1
BRANCH = "main"
STORAGE = "storage"
STORAGE_SUFFIX = "-storage"
FALLBACK_NAME = "LaVin pipelines"
FALLBACK_EMAIL = "lavin@localhost"
LOCK_TIMEOUT_S = 600.0
STALE_LOCK_S = 3.0

# What `git rev-parse --local-env-vars` lists, and what hooks set besides: inside a hook they all speak of the caller's repository.
CALLERS_GIT = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
    "GIT_AUTHOR_DATE",
    "GIT_COMMITTER_DATE",
)
# `dvc repro` and `dvc exp run` set these for the commands of a stage.
CALLERS_DVC = ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_BASELINE_REV", "DVC_EXP_NAME", "DVC_EXP_GIT_REMOTE", "DVC_EXP_AUTO_PUSH")
# A person's hooks and signing keys ask questions that nobody is there to answer.
UNATTENDED = (
    "core.hooksPath=/dev/null",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "tag.forceSignAnnotated=false",
    "core.autocrlf=false",
)
IGNORED = f"/{LOCK_NAME}\n/models/*\n!/models/*.dvc\n"


def is_registry(folder: Path) -> bool:
    """Whether a registry was made here; False also for an absent or empty folder.

    Raises: InputError where the folder holds something else, so that nobody's own repository is ever touched.
    """
    marker = folder / MARKER_NAME
    if marker.is_file():
        made = read_json(marker)
        if not isinstance(made, dict) or made.get("format") != FORMAT:
            raise InputError(f"{marker}: must say format {FORMAT}, the one that this version of lavin can read")
        return True
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a registry is a folder")
    if folder.exists() and any(path.name not in BEFORE_MARKER for path in folder.iterdir()):
        raise InputError(
            f"{folder}: is neither empty nor a registry (it has no {MARKER_NAME}); name a registry, or a folder to make one in"
        )
    return False


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds the registry against every other writer; makes it first where it is absent, and mends what a killed writer left.

    A writer may hold it again inside.

    Raises: InputError where the folder is something else, or is still held by another writer after ten minutes.
    """
    is_registry(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / LOCK_NAME, is_singleton=True)
        _acquire(lock, folder)
    except PermissionError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror})") from error
    try:
        _clear_stale_locks(folder)
        if not is_registry(folder):
            # The marker comes first, so that a half-made registry is known for one and finished by the next run.
            write_json(folder / MARKER_NAME, {"format": FORMAT})
        if not has_commits(folder):
            _create(folder)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("registry %s: waiting for another promotion to end", folder)
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except Timeout as error:
            raise InputError(f"{folder}: another promotion has held {LOCK_NAME} for {LOCK_TIMEOUT_S:.0f} s; try again later") from error


def _clear_stale_locks(folder: Path) -> None:
    """Removes the lock files of a git or DVC that was killed: only they outlive the few milliseconds that a command takes."""
    git = folder / ".git"
    waits_until = time.monotonic() + STALE_LOCK_S
    for lock in [*git.glob("*.lock"), *(git / "refs").rglob("*.lock")]:
        while lock.exists() and time.monotonic() < waits_until:
            time.sleep(0.05)
        if lock.exists():
            logger.warning("registry %s: removing %s, which a killed git left", folder, lock.name)
            lock.unlink(missing_ok=True)
    (folder / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)


def has_commits(folder: Path) -> bool:
    """Whether the registry has been made completely."""
    return (folder / ".git").is_dir() and _git(folder, "rev-parse", "--verify", "--quiet", "HEAD").returncode == 0


def _create(folder: Path) -> None:
    """Each command may have run before: a killed first run is finished by the second."""
    storage = folder.resolve().name + STORAGE_SUFFIX
    run_git(folder, "init", "--quiet", f"--initial-branch={BRANCH}", "--template=")
    run_dvc(folder, "init", "--quiet", "--force")
    run_dvc(folder, "remote", "add", "--quiet", "--default", "--force", STORAGE, f"../{storage}")
    write_text(folder / ".gitignore", IGNORED)
    commit(folder, [".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", MARKER_NAME], "Start the registry")
    logger.info("registry %s: made, with its bundles in %s", folder, folder.resolve().with_name(storage))


def commit(folder: Path, paths: list[str], message: str) -> str:
    """Commits these paths as they lie in the folder, and nothing else; returns the commit that then holds them.

    Where nothing changed (a killed run had come as far), that is the present one.
    """
    run_git(folder, "add", "--all", "--force", "--", *paths)
    if not has_commits(folder) or run_git(folder, "diff", "--cached", "--name-only", "HEAD", "--", *paths):
        run_git(folder, "commit", "--quiet", f"--message={message}", "--", *paths)
    return run_git(folder, "rev-parse", "HEAD")


def run_git(folder: Path, *arguments: str, date: int | None = None) -> str:
    """The standard output of a git command in the registry, without the last line break.

    Units: date in seconds since 1970, for the commit or tag that the command makes.
    Raises: StepFailedError with git's own words.
    """
    done = _git(folder, *arguments, date=date)
    if done.returncode:
        raise StepFailedError(f"{folder}: git {arguments[0]} failed ({_reason(done)})")
    return done.stdout.removesuffix("\n")


def run_dvc(folder: Path, *arguments: str) -> None:
    """A DVC command in the registry.

    Raises: StepFailedError with DVC's own words.
    """
    environment = {**clean_environment(folder), "DVC_NO_ANALYTICS": "1"}
    # -P: a file of the registry must never be taken for a Python module.
    done = _run([sys.executable, "-P", "-m", "dvc", *arguments], folder, environment)
    if done.returncode:
        raise StepFailedError(f"{folder}: dvc {arguments[0]} failed ({_reason(done)})")


def read_committed(folder: Path, commit: str, path: str) -> str | None:
    """The text of a file as a commit holds it; None where the commit has no such file."""
    done = _git(folder, "show", f"{commit}:{path}")
    return None if done.returncode else done.stdout


def clean_environment(folder: Path) -> dict[str, str]:
    """This process's environment without the caller's repository in it; git looks for none above the registry."""
    kept = {name: value for name, value in os.environ.items() if name not in CALLERS_GIT and name not in CALLERS_DVC}
    return kept | {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}


def _git(folder: Path, *arguments: str, date: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(folder)
    if arguments[0] in ("commit", "tag"):
        environment |= _identity(folder, environment)
    if date is not None:
        environment |= {"GIT_COMMITTER_DATE": f"@{date} +0000", "GIT_AUTHOR_DATE": f"@{date} +0000"}
    settings = [word for setting in UNATTENDED for word in ("-c", setting)]
    return _run(["git", *settings, *arguments], folder, environment)


def _identity(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Nothing where the user has told git who he is; ours otherwise, for this one command."""
    for role in ("AUTHOR", "COMMITTER"):
        if _run(["git", "-c", "user.useConfigOnly=true", "var", f"GIT_{role}_IDENT"], folder, environment).returncode:
            names = {f"GIT_{role}_NAME": FALLBACK_NAME for role in ("AUTHOR", "COMMITTER")}
            return names | {f"GIT_{role}_EMAIL": FALLBACK_EMAIL for role in ("AUTHOR", "COMMITTER")}
    return {}


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise StepFailedError(f"{command[0]}: is not installed, and the registry needs it") from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("ERROR:", "fatal:", "error:"))]
    return (telling or lines or [f"exit code {done.returncode}"])[-1]
