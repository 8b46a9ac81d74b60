"""Where a version of the pipeline comes from: the code's commit, the data's hash, the images; in a name, and in words with links."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

import components
import lavin_dit
from components.code_version import ask_git, git_commit, source_hash
from components.data_version import data_hash

SOURCE = Path(components.__path__[0])
NO_DATA = "nodata"
SHORT_HASH = 8
NAME_LENGTH = 127
REMOTE = re.compile(r"(?:(?:https?|ssh)://(?:[^@/]*@)?|[^@/:]+@)(?P<host>[\w.-]+)(?::\d+)?[:/](?P<path>[\w./~-]+?)(?:\.git)?/?")
CONTENT = re.compile(r"pipeline: sha256:(?P<hash>[0-9a-f]{64})")


@dataclass(frozen=True)
class Origin:
    """What a version is made of. Empty texts stand for what is not known."""

    code: str
    """The tag, and what came after it: as `git describe` has it."""
    commit: str
    url: str
    """The repository's page in a browser."""
    data_md5: str
    data_revision: str
    """The commit that tracks these very data."""

    @property
    def is_dirty(self) -> bool:
        """Whether files were changed that no commit holds."""
        return self.code.endswith("-dirty")

    def version_name(self) -> str:
        """Of the code and the data, in characters that every KFP store takes."""
        data = f"data-{self.data_md5[:SHORT_HASH]}" if self.data_md5 else NO_DATA
        code = re.sub(r"[^a-z0-9.]+", "-", self.code.lower()).strip("-.")
        return f"{code[: NAME_LENGTH - len(data) - 1]}-{data}"

    def description(self, images: list[str], text: str) -> str:
        """Markdown, as KFP's UI shows it; `CONTENT` finds the hash of the compiled text in it."""
        commit = self.commit.removesuffix("-dirty")
        code = f"{self.url}/commit/{commit}" if self.url and commit else commit or self.code
        revision = f"revision {self.data_revision}" if self.data_revision else "not committed as DVC tracks them"
        lines = [
            f"code: {code}{' and changes that no commit holds' if self.is_dirty else ''}",
            f"source: sha256:{source_hash()}",
            f"data: md5 {self.data_md5}, {revision}" if self.data_md5 else "data: none; rendered scenes alone",
            f"image: {', '.join(images)}",
            f"pipeline: sha256:{content_hash(text)}",
        ]
        return "\n".join(f"- {line}" for line in lines)


def content_hash(text: str) -> str:
    """sha256 of a compiled pipeline."""
    return hashlib.sha256(text.encode()).hexdigest()


def find_origin(raw: Path, source: Path | None = None) -> Origin:
    """Of the code that runs here (or lies in `source`), and of the data in `raw`."""
    source = source or SOURCE
    md5, revision = _data(raw)
    # An installed copy may lie inside somebody else's repository, in an ignored folder.
    if not ask_git(source, "ls-files", "."):
        return Origin(f"v{lavin_dit.__version__}", git_commit() or "", "", md5, revision)
    code = ask_git(source, "describe", "--tags", "--match", "v[0-9]*", "--always", "--dirty")
    return Origin(code, ask_git(source, "rev-parse", "HEAD"), _page(ask_git(source, "remote", "get-url", "origin")), md5, revision)


def _data(raw: Path) -> tuple[str, str]:
    """The hash of the data, and the commit whose tracked data they are."""
    tracked = raw.with_name(f"{raw.name}.dvc")
    recorded = str(yaml.safe_load(tracked.read_text(encoding="utf-8"))["outs"][0]["md5"]) if tracked.is_file() else ""
    is_here = raw.is_dir() and any(path.is_file() for path in raw.rglob("*"))
    md5 = data_hash(raw) if is_here else recorded
    if not recorded or md5 != recorded or ask_git(raw.parent, "status", "--porcelain", "--", tracked.name):
        return md5, ""
    return md5, ask_git(raw.parent, "log", "-1", "--format=%H", "--", tracked.name)


def _page(remote: str) -> str:
    """The page of a repository, without the user, password and port that its address may hold."""
    found = REMOTE.fullmatch(remote)
    return f"https://{found['host']}/{found['path'].lstrip('/')}" if found else ""
