"""The name of the code that makes results: a hash of its own source, and the git commit where there is one."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import lavin_dit
from lavin_dit.hashing import file_sha256

ROOTS = (Path(lavin_dit.__file__).resolve().parent, Path(__file__).resolve().parent)
IGNORED_FOLDER = "__pycache__"
REVISION_VARIABLE = "LAVIN_REVISION"
"""Where an image, which holds no repository, says which commit it was built from."""


@cache
def source_hash() -> str:
    """sha256 over every file of the library and the steps: edited code gives another name, and so other results."""
    return _hash(ROOTS)


def source_hash_of(checkout: Path) -> str:
    """The same of the code in a folder with a checkout of this project."""
    return _hash((checkout / "model" / "lavin_dit", checkout / "components"))


def _hash(roots: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(path for path in root.rglob("*") if path.is_file() and IGNORED_FOLDER not in path.parts):
            digest.update(f"{root.name}/{path.relative_to(root).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def git_commit() -> str | None:
    """The commit that the source stands at, with `-dirty` where the source differs from it; None where nothing tells it."""
    commit = ask_git(ROOTS[1], "rev-parse", "HEAD")
    if not commit:
        return os.environ.get(REVISION_VARIABLE) or None
    changed = ask_git(ROOTS[1], "status", "--porcelain", "--", *map(str, ROOTS))
    return f"{commit}-dirty" if changed else commit


def ask_git(folder: Path, *arguments: str) -> str:
    """What a git command says in a folder; empty where it fails, or git is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
