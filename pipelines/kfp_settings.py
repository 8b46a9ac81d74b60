"""Where the KFP server is and who asks: from a command's options, the environment, kfp's own file of settings, or what a pod is given."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from lavin_dit.errors import InputError

HOST_VARIABLES = ("KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT")
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
NAMESPACE_VARIABLE = "KFP_NAMESPACE"
TOKEN_VARIABLE = "KFP_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_PATH_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - the name of a variable
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
POD_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
CONTEXT = Path(".config") / "kfp" / "context.json"

PANEL = "KFP server"
Host = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address of the KFP server. Without it: KFP_ENDPOINT, else KF_PIPELINES_ENDPOINT, else, in a pod, KFP's usual address.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Your namespace, on a server of several users. Without it: KFP_NAMESPACE, else that in ~/.config/kfp/context.json, "
        "else the pod's.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with a bearer token, read anew for every request. Without it: KFP_TOKEN, the token itself, else the file that "
        f"{TOKEN_PATH_VARIABLE} names, else {POD_TOKEN}. A cookie or header in ~/.config/kfp/context.json goes along.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Settings:
    """Where the server is and who asks. Secrets are no part of its text."""

    host: str
    ui: str
    namespace: str
    token: Callable[[], str] = field(repr=False)
    cookie: str | None = field(repr=False)
    header: tuple[str, str] | None = field(repr=False)


def find_settings(host: str | None, namespace: str | None, token_file: Path | None) -> Settings:
    """From the command's options, else the environment, else kfp's own file of settings, else what a pod is given.

    Raises: InputError where no host is named, or a setting cannot be used.
    """
    context = _context()
    in_pod = POD_NAMESPACE.read_text(encoding="utf-8").strip() if POD_NAMESPACE.is_file() else ""
    address = _address(host or _first(*HOST_VARIABLES) or (POD_HOST if in_pod else ""))
    name, value = (context.get(f"client_authentication_header_{part}") or "" for part in ("name", "value"))
    cookie = context.get("client_authentication_cookie")
    return Settings(
        host=address,
        ui=(os.environ.get(UI_VARIABLE) or address).rstrip("/"),
        namespace=namespace or os.environ.get(NAMESPACE_VARIABLE) or context.get("namespace") or in_pod,
        token=_token(token_file),
        cookie=_sendable(cookie, f"client_authentication_cookie in ~/{CONTEXT}") if cookie else None,
        header=(name, _sendable(value, f"client_authentication_header_value in ~/{CONTEXT}")) if name and value else None,
    )


def _first(*variables: str) -> str:
    return next((os.environ[variable] for variable in variables if os.environ.get(variable)), "")


def _address(host: str) -> str:
    if not host:
        raise InputError(f"--host: names no KFP server; give its URL, or set {HOST_VARIABLES[0]}")
    if not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", host):
        raise InputError(f"--host {host}: must be a URL such as https://kfp.example.com, with no user or password in it")
    return host.rstrip("/")


def _context() -> dict[str, str]:
    file = Path.home() / CONTEXT
    if not file.is_file():
        return {}
    try:
        context = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        context = None
    if not isinstance(context, dict):
        raise InputError(f"{file}: must hold kfp's settings as JSON; mend it or remove it")
    return context


def _token(file: Path | None) -> Callable[[], str]:
    """Gives the token of the moment: a pod's own is replaced every hour."""
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if file is None and given:
        token = _sendable(given, TOKEN_VARIABLE)
        return lambda: token
    named = os.environ.get(TOKEN_PATH_VARIABLE)
    path = file or (Path(named) if named else POD_TOKEN)
    if file is None and not path.is_file():
        return lambda: ""
    return lambda: _read_token(path)


def _read_token(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"--token-file {file}: must be a readable file with a token") from None
    return _sendable(text, f"--token-file {file}")


def _sendable(secret: str, source: str) -> str:
    # http.client would quote a header that it refuses, and so print the secret.
    if not secret or not secret.isascii() or not secret.isprintable():
        raise InputError(f"{source}: must be one line of plain characters")
    return secret
