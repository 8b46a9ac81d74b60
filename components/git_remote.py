"""Somebody's git repository behind an address: single commits come from it without their history, and branches go to it.

Nothing of it is run: no hooks, no submodules, no transport that starts a program. Credentials come from the Secret `lavin-git` (or from
what the user has told git) and are in no address, message or file that outlives the command.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.entry import StepFailedError
from components.pod_environment import GIT_FOLDER, GIT_SECRET
from components.registry.repository import UNATTENDED, clean_environment
from lavin_dit.errors import InputError

CREDENTIALS, SSH_KEY, KNOWN_HOSTS = "credentials", "ssh-privatekey", "known_hosts"
TRANSPORTS = ("file", "git", "http", "https", "ssh")
SLOW_TRANSFER = ("http.lowSpeedLimit=1000", "http.lowSpeedTime=60")
TIMEOUT_S = 600.0
PAUSES_S = (1.0, 4.0, 10.0)
"""Before each further try, where the network failed."""

PROGRAM = re.compile(r"[A-Za-z0-9]+::")
"""Begins an address that starts a program."""
FETCHED = "refs/lavin/fetched"
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
# git's own words for what went wrong, in the order in which they tell it.
UNKNOWN_REVISION = re.compile(r"couldn't find remote ref|not our ref|unadvertised object|bad object")
REFUSED = re.compile(
    r"Authentication failed|could not read (?:Username|Password)|Permission denied|returned error: 40[13]|Host key verification failed"
)
ABSENT = re.compile(r"does not appear to be a git repository|repository .*not found|does not exist|returned error: 404", re.IGNORECASE)
NETWORK = re.compile(
    r"Could not resolve host|Temporary failure|Failed to connect|unable to connect|Couldn't connect|unreachable|early EOF|RPC failed"
    r"|Connection (?:refused|reset|timed out|closed)|[Oo]peration (?:timed out|too slow)|hung up unexpectedly|unexpected disconnect"
    r"|Empty reply|returned error: (?:429|5\d\d)"
)


@dataclass(frozen=True)
class GitRemote:
    """A repository elsewhere."""

    address: str
    """Without a password; a folder's is made absolute."""

    def __post_init__(self) -> None:
        _check_address(self.address)
        if "://" not in self.address and Path(self.address).is_dir():
            object.__setattr__(self, "address", str(Path(self.address).resolve()))

    @property
    def local_folder(self) -> Path | None:
        """The repository's folder, where it lies on this machine."""
        parts = urlsplit(self.address)
        folder = Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else Path(self.address)
        return folder if folder.is_dir() else None

    def fetch(self, revision: str, folder: Path, *, depth: int = 1) -> str:
        """Brings one commit into the git repository `folder`, which is made where it is absent; returns its full id.

        `revision` is a branch, a tag, a full commit or HEAD, the default branch.
        Raises: InputError where there is no such revision or repository, or the credentials do not suffice; StepFailedError where the
        network failed again and again.
        """
        if not REVISION.fullmatch(revision) or ".." in revision:
            raise InputError(f"revision {revision}: must be a branch, a tag, a full commit or HEAD")
        if not (folder / ".git").exists():
            _run(["git", *_settings(), "init", "--quiet", "--template=", str(folder)], folder.parent)
        source = f"+{revision}:{FETCHED}"
        self._talk(
            folder, ["fetch", "--quiet", f"--depth={depth}", "--no-tags", "--no-recurse-submodules", "--", self.address, source], revision
        )
        commit = _run(["git", *_settings(), "rev-parse", "--verify", f"{FETCHED}^{{commit}}"], folder).stdout.strip()
        if not FULL_COMMIT.fullmatch(commit):
            raise InputError(f"revision {revision}: is no commit of {self.address}")
        return commit

    def has_branch(self, branch: str, folder: Path) -> bool:
        """Whether there is such a branch.

        Raises: as `fetch` does.
        """
        return bool(self._talk(folder, ["ls-remote", "--heads", "--", self.address, f"refs/heads/{branch}"], branch))

    def push(self, folder: Path, commit: str, branch: str) -> None:
        """Makes a branch of a commit; never moves one that is not its ancestor.

        Raises: as `fetch` does.
        """
        self._talk(folder, ["push", "--quiet", "--no-verify", "--", self.address, f"{commit}:refs/heads/{branch}"], branch)

    def _talk(self, folder: Path, arguments: list[str], revision: str) -> str:
        for pause_s in (*PAUSES_S, None):
            with _credentials() as (settings, environment):
                done = _run(["git", *_settings(), *settings, *arguments], folder, environment)
            if not done.returncode:
                return done.stdout
            is_network = NETWORK.search(done.stderr) and not REFUSED.search(done.stderr)
            if not is_network:
                raise self._mistake(done.stderr, revision)
            if pause_s is not None:
                time.sleep(pause_s)
        raise StepFailedError(f"{self.address}: cannot be reached ({_reason(done.stderr)}); try again when the network is back")

    def _mistake(self, said: str, revision: str) -> Exception:
        if UNKNOWN_REVISION.search(said):
            hint = "; a commit needs all of its 40 digits" if re.fullmatch(r"[0-9a-f]{4,39}", revision) else ""
            return InputError(f"revision {revision}: is neither a branch nor a tag nor a commit of {self.address}{hint}")
        if REFUSED.search(said):
            return InputError(
                f"{self.address}: refuses the credentials, or needs some ({_reason(said)}); "
                f"they belong into the Secret {GIT_SECRET}: {CREDENTIALS}, or {SSH_KEY} and {KNOWN_HOSTS}"
            )
        if ABSENT.search(said):
            return InputError(f"{self.address}: is no git repository that can be seen from here ({_reason(said)})")
        return StepFailedError(f"{self.address}: git failed ({_reason(said)})")


def _check_address(address: str) -> None:
    if not address or address.startswith("-") or any(character.isspace() for character in address):
        raise InputError(f"repository {address!r}: must be the address of a git repository")
    parts = urlsplit(address)
    if parts.password or (parts.scheme in ("http", "https") and parts.username):
        host = parts.netloc.rpartition("@")[2]
        raise InputError(
            f"repository {parts.scheme}://{host}{parts.path}: must not hold a user or a password; put them into the Secret {GIT_SECRET}"
        )
    if PROGRAM.match(address) or ("://" in address and parts.scheme not in TRANSPORTS):
        raise InputError(f"repository {address}: must begin with one of {', '.join(f'{name}://' for name in TRANSPORTS)}, or be a folder")


@contextmanager
def _credentials() -> Iterator[tuple[list[str], dict[str, str]]]:
    """Settings and environment for one git command. What the Secret holds is copied: git locks it, and ssh trusts its mode only."""
    settings: list[str] = []
    environment = {"GIT_ALLOW_PROTOCOL": ":".join(TRANSPORTS), "GIT_ASKPASS": "true", "SSH_ASKPASS": "true"}
    with tempfile.TemporaryDirectory(prefix="lavin-git-") as name:
        for file in (CREDENTIALS, SSH_KEY, KNOWN_HOSTS):
            if (GIT_FOLDER / file).is_file():
                shutil.copyfile(GIT_FOLDER / file, Path(name) / file)
                (Path(name) / file).chmod(0o600)
        if (Path(name) / CREDENTIALS).exists():
            settings += ["-c", "credential.helper=", "-c", f"credential.helper=store --file={shlex.quote(f'{name}/{CREDENTIALS}')}"]
        environment["GIT_SSH_COMMAND"] = _ssh_command(Path(name))
        yield settings, environment


def _ssh_command(folder: Path) -> str:
    options = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
    if not (folder / SSH_KEY).exists() and "GIT_SSH_COMMAND" in os.environ:
        return os.environ["GIT_SSH_COMMAND"]
    if (folder / SSH_KEY).exists():
        options += ["-i", str(folder / SSH_KEY), "-o", "IdentitiesOnly=yes"]
    if (folder / KNOWN_HOSTS).exists():
        options += ["-o", f"UserKnownHostsFile={folder / KNOWN_HOSTS}", "-o", "StrictHostKeyChecking=yes"]
    return shlex.join(options)


def _settings() -> list[str]:
    return [word for setting in (*UNATTENDED, *SLOW_TRANSFER) for word in ("-c", setting)]


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env={**clean_environment(folder), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"fatal: Operation timed out after {TIMEOUT_S:.0f} s")
    except FileNotFoundError as error:
        raise StepFailedError("git: is not installed, and tracked data need it") from error


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))]
    return (telling or lines or ["no reason given"])[0]
