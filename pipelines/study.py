"""`lavin study`: how loss and metrics move with the model's size and the number of context pairs, measured on this machine."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.folders import read_json
from components.run_request import run_folder
from lavin_dit.errors import InputError
from pipelines.arguments import check_name, seed_overrides

if TYPE_CHECKING:
    from lavin_dit.config import Config

RECIPE = "study"
NAME = "study"

Params = Annotated[Path | None, typer.Option(metavar="FILE", help="A whole params file instead of a recipe.", show_default=False)]
Recipe = Annotated[str | None, typer.Option(metavar="NAME", help=f"A recipe, recipes/NAME.yaml (default: {RECIPE}).", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one value; repeatable.")]
Seed = Annotated[int | None, typer.Option(help="The seed of every section.")]
Sizes = Annotated[
    list[str] | None, typer.Option("--size", metavar="DEPTHxWIDTH", help="A size of the J-DiT; repeatable.", show_default=False)
]
Pairs = Annotated[list[int] | None, typer.Option("--pairs", metavar="N", help="A number of context pairs; repeatable.", show_default=False)]
Name = Annotated[str, typer.Option(help="The study's folder under runs/; a study of the same name continues where it was stopped.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes of each training step.")]
Raw = Annotated[Path, typer.Option(help="Your own pairs and photographs; may be absent.")]
AsExperiments = Annotated[
    bool, typer.Option("--dvc", help="Runs nothing: writes commands that queue the same study as DVC experiments, for a shell.")
]


def study(
    *,
    params: Params = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    seed: Seed = None,
    sizes: Sizes = None,
    num_pairs: Pairs = None,
    name: Name = NAME,
    processes: Processes = 1,
    raw: Raw = Path("data/raw"),
    as_experiments: AsExperiments = False,
) -> None:
    """Trains several sizes by one recipe, and measures each with several numbers of context pairs."""
    from components.recipes import params_file
    from components.study import NUM_PAIRS, SIZES, experiments, vary
    from lavin_dit.config import load_config

    check_name(name)
    file = params_file(params, recipe or (RECIPE if params is None else None))
    values = [*(overrides or []), *seed_overrides(seed)]
    config = load_config(file, values)
    if as_experiments:
        _check_experiments(config)
    sizes, num_pairs = sizes or list(SIZES), num_pairs or list(NUM_PAIRS)
    variations = vary(config.train_dit, config.evaluate, sizes=sizes, num_pairs=num_pairs)
    if as_experiments:
        for arguments in experiments(variations):
            typer.echo(shlex.join(["dvc", "exp", "run", "--queue", *arguments, "evaluate"]))
        return
    _run(file.read_text(encoding="utf-8"), values, Path("runs") / name, sizes=sizes, num_pairs=num_pairs, processes=processes, raw=raw)


def _check_experiments(config: "Config") -> None:
    """DVC's experiments begin with params.yaml, whatever this command was told.

    Raises: InputError where that is another study.
    """
    from components.recipes import DEFAULT_PARAMS
    from lavin_dit.config import load_config

    if load_config(DEFAULT_PARAMS) != config:
        raise InputError(
            f"--dvc: experiments begin with {DEFAULT_PARAMS}, which says something else: make it the recipe that is to be studied, "
            "with what --set and --seed change, and commit it"
        )


def _run(
    params: str, overrides: Sequence[str], folder: Path, *, sizes: Sequence[str], num_pairs: Sequence[int], processes: int, raw: Path
) -> None:
    from pipelines.local import RunFolder, execute

    arguments = {
        "params": params,
        "overrides": list(overrides),
        "sizes": list(sizes),
        "num_pairs": list(num_pairs),
        "raw": str(raw.resolve()),
        "workspace": str(folder.resolve()),
        "launcher": "local",
        "processes_per_node": processes,
    }
    execute("study", arguments, RunFolder(folder))
    trends = run_folder(folder) / "trends"
    typer.echo(f"\n{(trends / 'summary.md').read_text(encoding='utf-8')}")
    held_out = [task for task, entry in read_json(trends / "trends.json")["tasks"].items() if entry["held_out"]]
    typer.echo(f"held out  {', '.join(held_out) or 'nothing'}\n  trends  {trends}")
