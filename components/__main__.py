"""One step alone: `python -m components <step>`, by hand, as a DVC stage, or under torchrun."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from components.entry import clear_errors, configure_logging, stop_when_nobody_reads, tune_process
from components.execution import execute
from components.launcher.settings import local_job
from components.recipes import params_file
from components.steps import STEPS, load_step, section_of
from lavin_dit.config import load_config, section_from_json
from lavin_dit.errors import InputError
from lavin_dit.section import Section

RAW_FOLDER = Path("data/raw")
REGISTRY_FOLDER = Path("runs/registry")
OUTPUTS_FOLDER = Path("outputs")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see python -m components --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m components", description="Runs one step of the pipeline.")
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--params", type=Path, metavar="FILE", help="whole params file (default: params.yaml)")
    parser.add_argument("--recipe", metavar="NAME", help="recipes/NAME.yaml instead of a params file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="overrides one value; repeatable"
    )
    parser.add_argument(
        "--section", type=Path, metavar="FILE", help="the step's own section, as resolve wrote it, instead of a params file"
    )
    parser.add_argument("--on-bad", choices=("stop", "skip"), help="what prepare does about a bad file, in place of prepare.on_bad")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FOLDER", help="where an input lies; repeatable")
    parser.add_argument("--output", action="append", default=[], metavar="NAME=FOLDER", help="where the output goes; repeatable")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes of a training step (default: 1)")
    return parser


def _section(options: argparse.Namespace) -> Section:
    overrides = [*options.overrides, *_on_bad(options)]
    if options.section is None:
        config = load_config(params_file(options.params, options.recipe), overrides)
        return section_of(config, options.step)
    if options.params or options.recipe or overrides or options.step == "resolve":
        raise InputError(f"--section {options.section}: goes with neither --params, --recipe, --set nor --on-bad, and not with resolve")
    try:
        text = options.section.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--section {options.section}: cannot be read ({error})") from error
    return section_from_json(options.step, text)


def _on_bad(options: argparse.Namespace) -> list[str]:
    if options.on_bad is None:
        return []
    if options.step != "prepare":
        raise InputError(f"--on-bad {options.on_bad}: goes with prepare alone, not with {options.step}")
    return [f"prepare.on_bad={options.on_bad}"]


def default_folder(name: str) -> Path:
    """Where a folder lies when nothing else is said."""
    return {"raw": RAW_FOLDER, "registry": REGISTRY_FOLDER}.get(name, OUTPUTS_FOLDER / name)


def _folders(names: tuple[str, ...], given: Sequence[str], option: str) -> dict[str, Path]:
    folders = {name: default_folder(name) for name in names}
    for pair in given:
        name, separator, folder = pair.partition("=")
        if not separator or not folder or name not in folders:
            raise InputError(f"{option} {pair}: must read NAME=FOLDER with NAME one of {', '.join(names)}")
        folders[name] = Path(folder)
    return folders


def _run(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    section = _section(options)
    step = load_step(options.step)
    inputs = _folders(step.inputs, options.input, "--input")
    outputs = _folders(step.outputs, options.output, "--output")
    execute(options.step, section, inputs, outputs, job=local_job(options.processes))


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    tune_process()
    configure_logging()
    stop_when_nobody_reads()
    with clear_errors():
        _run(arguments)


if __name__ == "__main__":
    main()
