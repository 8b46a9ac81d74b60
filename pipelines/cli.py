"""The `lavin` command. Nothing slow is imported until a command needs it."""

from pathlib import Path
from typing import Annotated

import typer

from components.entry import FAILURE, clear_errors, configure_logging
from components.pod_environment import VOLUME
from pipelines.arguments import check_name, seed_overrides
from pipelines.data import data
from pipelines.following import wait
from pipelines.jobs import jobs
from pipelines.plan import plan
from pipelines.predict import predict
from pipelines.promotion import history, promote, rollback
from pipelines.record import record
from pipelines.release import Platform, upload
from pipelines.schedule import schedule
from pipelines.study import study
from pipelines.submit import submit

DEFAULT_IMAGE = "lavin-pipelines:latest"
CLUSTER = "On a cluster"

Params = Annotated[Path | None, typer.Option(metavar="FILE", help="A whole params file (default: params.yaml).", show_default=False)]
Recipe = Annotated[str | None, typer.Option(metavar="NAME", help="A recipe, recipes/NAME.yaml, instead of a params file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one value; repeatable.")]
Seed = Annotated[int | None, typer.Option(help="The seed of every section.")]
Name = Annotated[str, typer.Option(help="The run's folder under runs/; a run of the same name continues where it was stopped.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes of each training step.")]
Raw = Annotated[Path, typer.Option(help="Your own pairs and photographs; may be absent.")]
ImageName = Annotated[str, typer.Option(help="The image of every step, best by digest.")]
Volume = Annotated[str, typer.Option(help="The claim of the volume that steps and jobs share.")]
Out = Annotated[Path, typer.Option(help="The file to write.")]
PipelineName = Annotated[str, typer.Option(help="Which one: lavin, from data to promotion, or study, over sizes and numbers of pairs.")]

app = typer.Typer(
    name="lavin",
    help="Trains, evaluates, exports and promotes LaVin-DiT, a vision transformer that learns a task from example pairs.",
    epilog="Exit code 2: a mistake in what you gave, told in one line. Exit code 1: a failed step or a refused gate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    *,
    params: Params = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    seed: Seed = None,
    name: Name = "demo",
    processes: Processes = 1,
    raw: Raw = Path("data/raw"),
) -> None:
    """Runs the whole pipeline on this machine."""
    from components.recipes import params_file
    from lavin_dit.config import load_config

    check_name(name)
    values = [*(overrides or []), *seed_overrides(seed)]
    file = params_file(params, recipe)
    load_config(file, values)

    from pipelines.local import RunFolder, run_locally
    from pipelines.summary import print_summary

    folder = RunFolder(Path("runs") / name)
    outcome = run_locally(file.read_text(encoding="utf-8"), values, folder=folder, raw=raw, processes=processes)
    if not print_summary(outcome, folder):
        raise typer.Exit(FAILURE)


@app.command("compile", rich_help_panel=CLUSTER)
def compile_command(
    *,
    image: ImageName = DEFAULT_IMAGE,
    volume: Volume = VOLUME,
    platform: Platform = None,
    out: Out = Path("pipeline.yaml"),
    pipeline: PipelineName = "lavin",
) -> None:
    """Writes a pipeline as KFP's YAML."""
    from pipelines.compile import compile_pipeline

    compile_pipeline(image, out, volume=volume, platform=platform, pipeline=pipeline)
    typer.echo(f"{out}: the pipeline {pipeline}, for image {image}")


for command in (upload, submit, wait, schedule, record):
    app.command(rich_help_panel=CLUSTER)(command)
app.add_typer(jobs, name="jobs", rich_help_panel=CLUSTER)
app.add_typer(data, name="data")
app.command()(study)
app.command()(plan)
app.command()(predict)
app.command()(promote)
app.command()(rollback)
app.command()(history)


def _show_version(wanted: bool) -> None:
    if wanted:
        from lavin_dit import __version__

        typer.echo(f"lavin {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Shows the version.")] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """The entry point."""
    configure_logging()
    with clear_errors():
        app()


if __name__ == "__main__":
    main()
