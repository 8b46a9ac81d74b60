"""`lavin data`: versions of your own data, kept with git and DVC. docs/data.md shows a data set's life."""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lavin_dit.errors import InputError

if TYPE_CHECKING:
    from components.dataset_changes import Changes, Group
    from components.dataset_status import Status

MANY_FILES = 5000
"""From here on the number of files is what DVC's commands take their time for."""
DEFAULT_RAW = Path("data/raw")
SHORT_COMMIT = 9


class Split(StrEnum):
    """Where pairs go."""

    TRAIN = "train"
    TEST = "test"


Raw = Annotated[Path, typer.Option(metavar="DIR", help="The folder of all data, which DVC tracks as one.")]
Params = Annotated[Path, typer.Option(metavar="FILE", help="The params file, for its limits and its published data sets.")]

data = typer.Typer(help="Adds, compares and shares versions of your own data, with git and DVC.", no_args_is_help=True)


@data.command()
def add(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with pairs or photographs, a tar of them, or data/raw itself.")],
    *,
    task: Annotated[str, typer.Option(metavar="TASK", help="What the pairs teach; `photos` for photographs.")] = "",
    split: Annotated[
        Split | None, typer.Option(help="Whether the pairs are held out; by default as PATH's folders say, or train.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Puts files in the place of others of the same names.")] = False,
    raw: Raw = DEFAULT_RAW,
    params: Params = Path("params.yaml"),
) -> None:
    """Checks pairs or photographs, copies them into data/raw, and tracks the new version.

    Every picture is read first; a bad one is named, and nothing changes. With data/raw itself as PATH, what you changed there by hand is
    checked and tracked.
    """
    from components.dataset_adding import Batch, add_batch, add_here
    from components.dataset_checkout import open_checkout
    from components.dataset_versions import scratch_folder
    from lavin_dit.config import load_config

    checkout, config = open_checkout(raw), load_config(params, []).prepare
    if path.resolve().is_relative_to(checkout.folder.resolve()):
        if task or split or replace:
            raise InputError(f"{path}: lies in {checkout.path} already; add it without --task, --split and --replace")
        with scratch_folder() as scratch:
            number = add_here(checkout, config, scratch)
    elif not task:
        raise InputError("--task: must name a task, such as depth, or photos")
    else:
        number = add_batch(checkout, Batch(path, task, split.value if split else None, replaces=replace), config)
    typer.echo(f"{checkout.path}: checked {number} new pairs and photographs; the version is tracked as {checkout.tracked_name}")
    _hint_at_tars(checkout.folder)
    changed = checkout.git("diff", "--cached", "--name-only")
    if checkout.tracked_name in changed.splitlines():
        typer.echo(f'Next: git commit --message "Add …" && lavin data push    ({", ".join(changed.splitlines())} staged)')


def _hint_at_tars(folder: Path) -> None:
    number = sum(path.is_file() for path in folder.rglob("*"))
    if number > MANY_FILES:
        typer.echo(f"{folder}: holds {number} files; as tars they are pushed and pulled many times faster (docs/data.md)")


@data.command()
def status(*, raw: Raw = DEFAULT_RAW) -> None:
    """Shows what changed since the last commit by task and split, and whether it is tracked, committed and pushed."""
    from components.dataset_checkout import open_checkout
    from components.dataset_status import read_status
    from components.dataset_versions import scratch_folder

    checkout = open_checkout(raw)
    with scratch_folder() as scratch:
        found = read_status(checkout, scratch)
    typer.echo(f"{checkout.path}: {found.num_files} files; since the last commit:")
    _print_changes(found.changes)
    for line in _next_steps(found, str(checkout.path), checkout.tracked_name):
        typer.echo(line)


def _next_steps(found: "Status", path: str, tracked: str) -> list[str]:
    lines = ["tracked: yes" if found.is_added else f"tracked: no; `lavin data add {path}` does that"]
    lines.append("committed: yes" if found.is_committed else f"committed: no; `git commit {tracked}` does that")
    answers = {True: f"pushed: yes, to {found.remote}", False: f"pushed: no, not to {found.remote}; `lavin data push` does that"}
    return [*lines, answers[found.is_pushed] if found.is_pushed is not None else f"pushed: not known; {found.remote}"]


@data.command()
def diff(
    revision: Annotated[str, typer.Argument(metavar="REV1", help="A commit, branch or tag.")],
    other: Annotated[str, typer.Argument(metavar="REV2", help="Another; by default the files as they are now.", show_default=False)] = "",
    *,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Writes a page with pictures of what differs.")] = None,
    pictures: Annotated[int, typer.Option(metavar="N", min=1, help="Of each group, added, removed and changed items on the page.")] = 24,
    raw: Raw = DEFAULT_RAW,
) -> None:
    """Shows what differs between two versions, by task and split.

    Neither is checked out: what is not in DVC's cache comes from the remote, and only what is needed.
    """
    from components.dataset_changes import find_changes
    from components.dataset_checkout import open_checkout
    from components.dataset_versions import scratch_folder, version_at, version_here

    checkout = open_checkout(raw)
    if html and not html.parent.is_dir():
        raise InputError(f"--html {html}: must lie in a folder that is there")
    with scratch_folder() as scratch:
        old = version_at(checkout, revision, scratch)
        new = version_at(checkout, other, scratch) if other else version_here(checkout, scratch)
        found = find_changes(old, new)
        if html:
            from components.dataset_page import render_changes
            from components.folders import write_text

            write_text(html, render_changes(old, new, found, max_shown=pictures))
    _print_changes(found)
    if html:
        typer.echo(f"{html}: shows them")


def _print_changes(found: "Mapping[Group, Changes]") -> None:
    if not found:
        typer.echo("nothing differs")
        return
    rows = [(task, split, f"{noun}s", *map(str, changes.counts)) for (task, split, noun), changes in found.items()]
    columns = ("task", "split", "", "added", "removed", "changed")
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


@data.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of shards, as prepare wrote it.")] = Path("outputs/shards"),
) -> None:
    """Compares whole files of prepared shards with their sha256, which finds any change, also one on purpose."""
    from lavin_dit.data.shards.shard_set import verify_shards

    typer.echo(f"{folder}: all {verify_shards(folder)} files are as prepare wrote them")


@data.command()
def push(
    *,
    every_version: Annotated[bool, typer.Option("--all", help="All versions of the repository's history.")] = False,
    raw: Raw = DEFAULT_RAW,
) -> None:
    """Pushes the tracked version to the DVC remote. Interrupted, it is gone on with by the next."""
    from components.dataset_checkout import open_checkout
    from components.dataset_sharing import push as push_data

    typer.echo(push_data(open_checkout(raw), every_version=every_version))


@data.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Data that were imported; your own where it is left out.")] = "",
    *,
    force: Annotated[bool, typer.Option("--force", help="Drops files that were never added.")] = False,
    raw: Raw = DEFAULT_RAW,
) -> None:
    """Makes data/raw what the present commit says, from the DVC remote, or fetches data that were imported.

    Interrupted, it is gone on with by the next.
    """
    from components.dataset_checkout import open_checkout
    from components.dataset_sharing import pull as pull_data
    from components.dataset_sharing import pull_reference

    checkout = open_checkout(raw)
    if name:
        folder = pull_reference(checkout, name).relative_to(checkout.root)
        typer.echo(f"{folder}: is what was imported; `lavin run --raw {folder}` trains on it")
    else:
        typer.echo(pull_data(checkout, force=force))


@data.command("import")
def import_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A folder of a bucket, laid out as data/raw is: s3://bucket/pairs.")],
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called here; by default URL's last part.", show_default=False)] = "",
    raw: Raw = DEFAULT_RAW,
) -> None:
    """Refers to data in a bucket without copying them.

    Git keeps the address and a hash of all that is there; `lavin data pull NAME` fetches just that, or says that it has changed. Done
    again, it takes what is there by now.
    """
    from components.dataset_checkout import open_checkout
    from components.dataset_sharing import import_reference

    if not re.fullmatch(r"[a-z0-9+]+://\S+", url):
        raise InputError(f"{url}: must be the address of a folder of a bucket, such as s3://bucket/pairs")
    url = url.rstrip("/")
    found = import_reference(open_checkout(raw), url, name or url.rpartition("/")[2])
    typer.echo(f"{found.path}: refers to {found.num_files} files in {found.url}, by their content {found.md5}")
    typer.echo(f'Next: git commit --message "Refer to …"; `lavin data pull {found.path.name}` fetches them')
