"""The name of a data set's content: the hash that DVC gives its folder, whether or not DVC tracks it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml


def data_hash(raw: Path) -> str:
    """DVC's md5 of the folder, so that `dvc add` changes nothing; an absent folder equals an empty one.

    Where DVC tracks the folder and says that it is clean, its recorded md5 is taken without reading the data.
    """
    tracked = raw.with_name(f"{raw.name}.dvc")
    if tracked.is_file() and _is_clean(tracked):
        document = yaml.safe_load(tracked.read_text(encoding="utf-8"))
        return str(document["outs"][0]["md5"])
    return hash_tree(raw)


def _is_clean(tracked: Path) -> bool:
    command = [sys.executable, "-P", "-m", "dvc", "status", "--quiet", tracked.name]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=tracked.parent, env=environment, capture_output=True, check=False)
    return done.returncode == 0


def hash_tree(raw: Path) -> str:
    """DVC's md5 of a folder, by reading all of it."""
    files = (path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())
    return hash_listing({name: file_md5(raw / name) for name in files})


def hash_listing(hashes: Mapping[str, str], *, kind: str = "md5") -> str:
    """DVC's md5 of a folder, from the md5 of each file by its name; of a bucket's folder, from the `etag` of each object."""
    entries = [{kind: hashes[name], "relpath": name} for name in sorted(hashes)]
    return f"{hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest()}.dir"


def file_md5(path: Path) -> str:
    """md5 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, _md5).hexdigest()


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)
