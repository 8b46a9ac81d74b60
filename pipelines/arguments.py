"""What a person gives a run: texts, held against the pipeline's own declarations before anything is sent; and the run's name."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from components.run_request import AS_IN_RECIPE, NOWHERE
from lavin_dit.errors import InputError
from pipelines.package import Package

OVERRIDES = "overrides"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
SEEDED = ("prepare", "train_vae", "train_dit", "evaluate", "export")
NAME_LENGTH = 120
SHOWN_LENGTH = 80

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter", "--param", "-p", metavar="NAME=VALUE", help="One parameter of the pipeline; repeatable. Lists and dicts as JSON."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One value to change in the recipe; repeatable: the pipeline's overrides."),
]


def check_name(name: str) -> None:
    """Refuses what is no plain name of a folder under runs/.

    Raises: InputError naming it and what is allowed.
    """
    if not PLAIN_NAME.fullmatch(name):
        raise InputError(f"--name {name}: must be one plain name, of letters, digits, dots, dashes and underscores")


def seed_overrides(seed: int | None) -> list[str]:
    """One seed for every section that has one; nothing where none is given."""
    return [f"{section}.seed={seed}" for section in SEEDED if seed is not None]


def read_arguments(package: Package, parameters: Sequence[str], settings: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of a run, in the types that the pipeline declares.

    Raises: InputError naming the parameter, its value and what is allowed.
    """
    arguments: dict[str, Any] = {}
    for text in parameters:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InputError(f"--parameter {shown(text)}: must be NAME=VALUE")
        if name in arguments:
            raise InputError(f"--parameter {shown(text)}: {name} is given twice")
        arguments[name] = _read(package, name, value)
    for text in settings:
        if not re.fullmatch(r"\w+(\.\w+)+=.*", text, re.DOTALL):
            raise InputError(f"--set {shown(text)}: must be SECTION.KEY=VALUE")
    if settings:
        _declaration(package, OVERRIDES, f"--set {shown(settings[0])}")
        arguments[OVERRIDES] = [*arguments.get(OVERRIDES, []), *settings]
    _check_all_given(package, arguments)
    return arguments


def run_name(package: Package, arguments: Mapping[str, Any], version: str) -> str:
    """What runs, in the words that a person would look for, such as "laptop 0.1B data@main pytorchjob 2x8 h100 · v0.3.0"."""
    defaults = {name: declaration.get("defaultValue") for name, declaration in package.parameters.items()}
    if not {"recipe", "launcher", "accelerator"} <= set(defaults):
        return f"{package.name} · {version}"
    values = defaults | dict(arguments)
    words = [
        "own params" if values.get("params") else values["recipe"],
        values.get("model_size") if values.get("model_size") != AS_IN_RECIPE else "",
        f"data@{values['data_revision']}" if values.get("data_revision") else "",
        values["launcher"],
        f"{values.get('nodes', 1):g}x{values.get('processes_per_node', 1):g}",
        values["accelerator"],
        f"to {values['stage']}" if values.get("stage") not in (None, AS_IN_RECIPE, NOWHERE) else "",
        *(values.get(OVERRIDES) or []),
    ]
    name = " ".join(" ".join(str(word) for word in words if word).split())
    room = NAME_LENGTH - len(version) - 3
    return f"{name if len(name) <= room else name[: room - 1] + '…'} · {version}"


def _declaration(package: Package, name: str, given: str) -> dict[str, Any]:
    if name not in package.parameters:
        raise InputError(f"{given}: the pipeline has no parameter {name}; it has {', '.join(sorted(package.parameters)) or 'none'}")
    return package.parameters[name]


def _read(package: Package, name: str, text: str) -> Any:
    given = f"--parameter {shown(f'{name}={text}')}"
    declaration = _declaration(package, name, given)
    kind, allowed = _KINDS.get(declaration["parameterType"], (_string, "a text"))
    try:
        value = kind(text)
    except ValueError:
        raise InputError(f"{given}: must be {allowed}") from None
    literals = declaration.get("literals")
    if literals and value not in literals:
        raise InputError(f"{given}: must be one of {', '.join(map(str, literals))}")
    return value


def shown(text: str) -> str:
    """Its beginning, in one line: a value may be a whole file."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_LENGTH else f"{line[:SHOWN_LENGTH]}…"


def _check_all_given(package: Package, arguments: Mapping[str, Any]) -> None:
    for name, declaration in package.parameters.items():
        if name not in arguments and not declaration.get("isOptional") and "defaultValue" not in declaration:
            raise InputError(f"--parameter {name}=VALUE: must be given, the pipeline has no default for it")


def _string(text: str) -> str:
    return text


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(text)
    return int(text)


def _double(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _json(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = json.loads(text, parse_constant=_refuse)
        if not isinstance(value, kind):
            raise ValueError(text)
        return value

    return read


_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "STRING": (_string, "a text"),
    "NUMBER_INTEGER": (_integer, "a whole number"),
    "NUMBER_DOUBLE": (_double, "a finite number"),
    "BOOLEAN": (_boolean, "true or false"),
    "LIST": (_json(list), 'a list as JSON, such as ["a", "b"]'),
    "STRUCT": (_json(dict), 'a dict as JSON, such as {"a": 1}'),
}
