"""Where params files are found: params.yaml of the project, and the recipes beside it or inside the installed package."""

from pathlib import Path

from lavin_dit.errors import InputError

DEFAULT_PARAMS = Path("params.yaml")
INSTALLED = Path(__file__).resolve().parent.parent


def params_file(params: Path | None, recipe: str | None) -> Path:
    """The file to read: `recipe` by name, else `params`, else params.yaml of the working folder.

    Raises: InputError where both are given, or there is no such recipe.
    """
    if recipe is None:
        return params or DEFAULT_PARAMS
    if params is not None:
        raise InputError(f"--recipe {recipe} and --params {params}: give one of the two")
    known = recipes()
    if recipe not in known:
        raise InputError(f"--recipe {recipe}: must be one of {', '.join(sorted(known)) or '(there are no recipes here)'}")
    return known[recipe]


def recipes() -> dict[str, Path]:
    """Recipe files by name; those of the working folder come before those of the package."""
    folders = (INSTALLED / "pipelines" / "recipes", INSTALLED / "recipes", Path("recipes"))
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
