"""`lavin predict`: answers from a bundle, without torch."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lavin_dit.errors import InputError

if TYPE_CHECKING:
    from lavin_dit.export.runtime import Bundle, Context

logger = logging.getLogger(__name__)


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An exported bundle's folder.")],
    query: Annotated[list[Path], typer.Option(metavar="IMAGE", help="A picture, or a folder of pictures; repeatable.")],
    out: Annotated[Path, typer.Option(metavar="PATH", help="The answer's file; for several pictures, or a folder of them, a folder.")],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="A task of the bundle; its own example pairs are shown.")] = None,
    context: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your own example pairs, <name>_input.<ext> and <name>_target.<ext>: any task.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Example pairs to show, the first by name (default: as many as the bundle's).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed gives another answer.")] = 0,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 1 is off (default: the bundle's).")] = None,
) -> None:
    """Answers queries from a bundle: a task's answer to each picture, at the picture's own size.

    A picture is squeezed into the model's square and its answer stretched back. Its answer depends on the picture, the example pairs and
    the seed, not on what else is asked.
    """
    answers = _plan(query, out)

    from lavin_dit.export.pictures import read_image, squeeze, stretch, write_image
    from lavin_dit.export.runtime import Bundle
    from lavin_dit.progress import Progress

    opened = Bundle.open(bundle)
    nearest = opened.nearest(task)
    shown = _show(opened, task, context, pairs)
    with Progress("predict", len(answers)) as progress:
        for picture, answer_path in answers.items():
            image = read_image(picture)
            (answer,) = opened.predict(
                squeeze(image, opened.resolution, is_nearest=nearest.inputs)[None],
                shown.inputs[None],
                shown.targets[None],
                seed=seed,
                guidance_scale=guidance,
            )
            write_image(answer_path, stretch(answer, image.size, is_nearest=nearest.targets))
            progress.advance(note=answer_path.name)
    logger.info("%s: %s, from %d example pairs", out, f"{len(answers)} answers" if len(answers) > 1 else "the answer", len(shown.inputs))


def _plan(queries: list[Path], out: Path) -> dict[Path, Path]:
    """Where the answer to each picture goes; refuses before anything is loaded."""
    from lavin_dit.data.raw.images import SUFFIXES
    from lavin_dit.export.pictures import find_images

    pictures = [picture for query in queries for picture in (find_images(query) if query.is_dir() else [query])]
    for picture in pictures:
        if not picture.is_file():
            raise InputError(f"--query {picture}: there is no such file or folder")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")
    if len(queries) == 1 and queries[0].is_file() and not out.is_dir():
        if out.suffix.lower() not in SUFFIXES:
            raise InputError(f"--out {out}: must end in one of {', '.join(SUFFIXES)}, or be a folder")
        return _checked({pictures[0]: out})
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: must be a folder for {len(pictures)} pictures, and is a file")
    answers = _checked({picture: out / f"{picture.stem}.png" for picture in pictures})
    out.mkdir(exist_ok=True)
    return answers


def _checked(answers: dict[Path, Path]) -> dict[Path, Path]:
    taken: dict[Path, Path] = {}
    for picture, answer in answers.items():
        if answer in taken:
            raise InputError(f"--query {picture}: its answer {answer} would overwrite that of {taken[answer]}")
        taken[answer] = picture
        if answer.resolve() in {each.resolve() for each in answers}:
            raise InputError(f"--out {answer}: would overwrite a query")
    return answers


def _show(bundle: "Bundle", task: str | None, context: Path | None, pairs: int | None) -> "Context":
    """The example pairs: the user's own where given, the task's default ones else."""
    from lavin_dit.export.pictures import find_pairs, read_context
    from lavin_dit.export.runtime import Context

    if context is None:
        if task is None:
            raise InputError(f"--task: say one of {', '.join(bundle.tasks)}, or show your own pairs with --context")
        held = bundle.contexts(task)
        _check_pairs(pairs, len(held.inputs), f"the bundle holds {len(held.inputs)} of {task}")
        return Context(held.inputs[:pairs], held.targets[:pairs])
    found = find_pairs(context)
    _check_pairs(pairs, len(found), f"{context} holds {len(found)}")
    wanted = found[: pairs or bundle.num_pairs]
    if pairs is None and len(found) > len(wanted):
        logger.info("%s: shows the first %d of its %d pairs; --pairs shows more", context, len(wanted), len(found))
    return read_context(wanted, bundle.resolution, nearest=bundle.nearest(task))


def _check_pairs(asked: int | None, held: int, explanation: str) -> None:
    if asked is not None and asked > held:
        raise InputError(f"--pairs {asked}: {explanation}")
