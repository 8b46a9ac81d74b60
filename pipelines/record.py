"""`lavin record`: a finished run's results go back into git and DVC."""

from pathlib import Path
from typing import Annotated

import typer

from components.pod_environment import REPOSITORY_VARIABLE, take_object_store_keys
from lavin_dit.errors import InputError

DEFAULT_WORKSPACE = Path("/workspace")
BRANCHES = "runs/"


def record(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id: its folder's name under runs/ of the workspace.")],
    workspace: Annotated[Path, typer.Option(metavar="DIR", help="The workspace in which it ran.")] = DEFAULT_WORKSPACE,
    repository: Annotated[
        str, typer.Option(metavar="URL", envvar=REPOSITORY_VARIABLE, help="The git repository with this project's code.")
    ] = "",
    branch: Annotated[str, typer.Option(metavar="NAME", help="The branch to make (default: runs/RUN).", show_default=False)] = "",
    base: Annotated[
        str,
        typer.Option(
            metavar="REVISION",
            help="Branch, tag or commit with the code of the run (default: the default branch, else the commit that the bundle names).",
            show_default=False,
        ),
    ] = "",
    remote: Annotated[
        str, typer.Option(metavar="NAME", help="The DVC remote to push to (default: the repository's default one).", show_default=False)
    ] = "",
) -> None:
    """Writes a finished run's results into DVC, on a branch of their own, so that `dvc repro` finds nothing to do.

    Data are pushed first, then the branch. Done again, it finds its work done.
    """
    if not repository:
        raise InputError(f"--repository: must name a git repository; {REPOSITORY_VARIABLE} is not set either")
    # DVC's listing of a remote takes a second to import.
    from components.record import Target, record_run

    take_object_store_keys()
    target = Target(repository, branch or f"{BRANCHES}{run}", base=base, remote=remote)
    recorded = record_run(workspace, run, target)
    if not recorded.is_new:
        typer.echo(f"{target.branch}: holds run {run} already, as commit {recorded.commit}; nothing was changed")
        return
    typer.echo(f"{target.branch}: holds run {run} now, as commit {recorded.commit}")
    typer.echo(f"On a laptop: git fetch && git checkout {target.branch} && dvc pull && dvc repro")
