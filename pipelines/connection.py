"""A connection to a KFP server: its API, and one clear line for whatever goes wrong on the way."""

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from components.entry import StepFailedError
from lavin_dit.errors import InputError
from pipelines.kfp_settings import NAMESPACE_VARIABLE, TOKEN_VARIABLE, Settings, find_settings

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
PAGE_SIZE = 100
LOG_VERSIONS = ("v1alpha1", "v2beta1")
MESSAGE_LENGTH = 400
PASSING = (429, 500, 502, 503, 504)
TOKEN_HINT = f"give another token with --token-file or {TOKEN_VARIABLE}, or ask for the right"


class ServerError(StepFailedError):
    """What the server did, or did not do; `is_passing` where a later try may fare better."""

    def __init__(self, sentence: str, *, is_passing: bool = True) -> None:
        super().__init__(sentence)
        self.is_passing = is_passing


class UnknownHostError(InputError):
    """A host whose name nobody knows; on a machine that just lost its network, every host."""


class AccessRefusedError(InputError):
    """The server wants another token, or none but somebody else's."""


class NotFoundError(InputError):
    """The server knows no such thing."""


class Connection:
    """KFP's API, one generated client a subject, all of them on one wire.

    Raises: InputError for what the user gave, ServerError for what the server did; both one sentence.
    """

    def __init__(self, settings: Settings) -> None:
        import kfp_server_api as api

        name, value = settings.header or (None, None)
        client = api.ApiClient(api.Configuration(host=settings.host), header_name=name, header_value=value, cookie=settings.cookie)
        self._wire = client.rest_client.pool_manager = _Wire(settings)
        self._headers = dict([settings.header]) if settings.header else {}
        if settings.cookie:
            self._headers["Cookie"] = settings.cookie
        self.host, self._ui = settings.host, settings.ui
        self.namespace: str | None = None
        self.pipelines = api.PipelineServiceApi(client)
        self.uploads = api.PipelineUploadServiceApi(client)
        self.experiments = api.ExperimentServiceApi(client)
        self.runs = api.RunServiceApi(client)
        self.recurring_runs = api.RecurringRunServiceApi(client)
        self._health = api.HealthzServiceApi(client)

    def greet(self, namespace: str) -> None:
        """Learns whether the server knows namespaces; one of a single user refuses requests that name one."""
        try:
            health = self._health.healthz_service_get_healthz()
        except NotFoundError:
            raise InputError(f"--host {self.host}: is no KFP server of version 2 (there is no /apis/v2beta1/healthz)") from None
        if health.multi_user and not namespace:
            raise InputError(f"--namespace: {self.host} serves several users; name your namespace, or set {NAMESPACE_VARIABLE}")
        self.namespace = namespace if health.multi_user else None

    def scope(self) -> dict[str, str]:
        """The namespace, as an argument of requests that take one."""
        return {"namespace": self.namespace} if self.namespace else {}

    def logs(self, run_id: str, pod: str) -> Iterator[str]:
        """What a pod of a run wrote, from every place that has it: no published part of KFP's API, but API server and UI both give it."""
        namespace = {"podnamespace": self.namespace} if self.namespace else {}
        places = [f"apis/{version}/runs/{run_id}/nodes/{pod}/log" for version in LOG_VERSIONS]
        for place in [*places, f"k8s/pod/logs?{urlencode({'podname': pod, **namespace})}"]:
            try:
                answer = self._wire.fetch("GET", f"{self.host}/{place}", headers=self._headers)
            except (InputError, StepFailedError):
                continue
            yield answer.data.decode("utf-8", errors="replace")

    def link(self, place: str) -> str:
        """A page of the UI."""
        return f"{self._ui}/#/{place}"


def connect(host: str | None, namespace: str | None, token_file: Path | None) -> Connection:
    """A connection that works: the server has answered. See `find_settings`."""
    settings = find_settings(host, namespace, token_file)
    connection = Connection(settings)
    connection.greet(settings.namespace)
    return connection


def named(name: str) -> str:
    """A filter for things of this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


def all_pages(request: Callable[..., Any], items: str, **arguments: Any) -> list[Any]:
    """Every item of a list, however many pages it has."""
    found: list[Any] = []
    token = ""
    while True:
        page = request(page_size=PAGE_SIZE, page_token=token, **arguments)
        found += getattr(page, items) or []
        token = page.next_page_token
        if not token:
            return found


def first_line(text: str) -> str:
    """Of a message, where what follows are stack traces; long ones are cut."""
    line = " ".join(text.strip().partition("\n")[0].split())
    return line if len(line) <= MESSAGE_LENGTH else f"{line[:MESSAGE_LENGTH]}…"


class _Wire:
    """Stands in for the pool that kfp_server_api sends through, whose own errors it garbles: a failed TLS handshake ends in an
    AttributeError. Nothing is tried twice here, and no redirect is followed: it would carry the token to another host.
    """

    def __init__(self, settings: Settings) -> None:
        from urllib3 import PoolManager

        self._host, self._token = settings.host, settings.token
        self._pool = PoolManager(ssl_context=_trust() if settings.host.startswith("https:") else None)

    def request(self, method: str, url: str, *, headers: dict[str, str], **content: Any) -> Any:
        """What kfp_server_api calls: one request, answered in JSON."""
        response = self.fetch(method, url, headers=headers, **content)
        if not _is_json(response.data):
            raise InputError(f"--host {self._host}: is no KFP server: what it answers is no JSON, but perhaps a page to log in")
        return response

    def fetch(self, method: str, url: str, *, headers: dict[str, str], **content: Any) -> Any:
        """Sends one request, with timeouts of our own."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        if token := self._token():
            headers = headers | {"authorization": f"Bearer {token}"}
        content |= {"timeout": Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S), "retries": False, "redirect": False}
        try:
            response = self._pool.request(method, url, headers=headers, **content)
        except HTTPError as error:
            raise _lost(self._host, error, may_have_worked=method != "GET") from None
        if response.status >= 300:
            raise _refused(self._host, response.status, _message(response.data), response.headers.get("location", ""))
        return response


def _trust() -> ssl.SSLContext:
    """What the system trusts (or SSL_CERT_FILE names), and what certifi does."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _lost(host: str, error: Exception, *, may_have_worked: bool) -> Exception:
    from urllib3 import exceptions

    doubt = "; what you asked for may have been done all the same, look before you ask again" if may_have_worked else ""
    if isinstance(error, exceptions.NameResolutionError):
        return UnknownHostError(f"--host {host}: nobody knows a host of this name")
    if isinstance(error, exceptions.SSLError):
        reason = str(error).rpartition("] ")[2] or str(error)
        return InputError(f"--host {host}: no TLS connection ({reason}); SSL_CERT_FILE may name the certificate of your own authority")
    if isinstance(error, exceptions.NewConnectionError):
        return ServerError(f"{host} cannot be reached: {_cause(error)}; is the server up, and the port-forward if you use one?")
    if isinstance(error, exceptions.ConnectTimeoutError):
        return ServerError(f"{host} cannot be reached: no connection within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(error, exceptions.ReadTimeoutError):
        return ServerError(f"{host} did not answer within {READ_TIMEOUT_S:g} s{doubt}")
    return ServerError(f"{host} broke the connection off: {_cause(error)}{doubt}")


def _cause(error: Exception) -> str:
    cause = error.__cause__ or error.__context__ or error
    return str(getattr(cause, "strerror", None) or cause)


def _refused(host: str, status: int, message: str, location: str) -> Exception:
    told = f": {message}" if message else ""
    if status < 400:
        return AccessRefusedError(f"--host {host}: sends us on to {location.partition('?')[0]}, perhaps to log in; {TOKEN_HINT}")
    if status in (401, 403):
        problem = "does not know you" if status == 401 else "does not let you do this"
        return AccessRefusedError(f"--host {host}: {problem} ({status}{told}); {TOKEN_HINT}")
    if status == 404:
        return NotFoundError(f"--host {host}: knows no such thing (404{told})")
    if status == 409:
        return InputError(f"{host} has it already, made at this very moment (409{told}); run the same again")
    if status < 500 and status not in PASSING:
        return InputError(f"{host} refused the request ({status}{told})")
    return ServerError(f"{host} failed ({status}{told})", is_passing=status in PASSING)


def _message(body: bytes) -> str:
    """The server's own sentence, in whichever of its forms it comes."""
    text = body.decode("utf-8", errors="replace")
    if _is_json(body) and isinstance(document := json.loads(body), dict):
        text = str(document.get("message") or document.get("error_message") or document.get("error") or "")
    elif text.lstrip().startswith("<"):
        text = ""
    return first_line(text)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
