"""The API server, as the launcher speaks to it: one request at a time, and errors sorted by what can be done about them."""

import json
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_incluster_config, load_kube_config
from urllib3 import HTTPResponse, Timeout
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from components.launcher.clock import Clock, SystemClock
from components.launcher.kinds import JobKind
from lavin_dit.errors import InputError

FIELD_MANAGER = "lavin-launcher"
TIMEOUT = Timeout(connect=5, read=15)
RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
START_OF_SERVER_S = 60.0
TEMPORARY_STATUSES = (408, 410, 425, 429)
WORDS_OF_ADMISSION = ("denied the request", "violates PodSecurity", "exceeded quota")
"""Of a 403 that is about what was sent, and not about who sent it."""

Object = dict[str, Any]
Result = TypeVar("Result")


class ApiError(Exception):
    """An answer that is not the one asked for; its text is what the server said."""


class NotFoundError(ApiError):
    """There is no such object."""


class NoSuchPathError(NotFoundError):
    """The server does not know the kind of object at all, or not yet: it has only just started."""


class ConflictError(ApiError):
    """There is another object of that name, or the object is not the one that was meant."""


class DeniedError(ApiError):
    """Who asks is not known, or may not."""


class RefusedError(ApiError):
    """The request cannot be carried out as it is."""


class UnavailableError(ApiError):
    """No answer, or one that says to try again. Units: `retry_after_s` in seconds; 0 where the server names none."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


TEMPORARY_ERRORS = (UnavailableError, NoSuchPathError)
"""What says nothing of the object that was asked for."""
MENDING_ERRORS = (*TEMPORARY_ERRORS, DeniedError)
"""A token that is being renewed, or a server that is starting, denies for a moment what it will allow."""


def connect() -> ApiClient:
    """A client with this pod's service account, or with what KUBECONFIG says.

    Raises: InputError where there is neither.
    """
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        try:
            load_kube_config(client_configuration=configuration)
        except (ConfigException, OSError, YAMLError) as error:
            raise InputError(f"no cluster: this is not a pod, and KUBECONFIG names none ({' '.join(str(error).split())})") from error
    return ApiClient(configuration)


def namespace_of_kubeconfig() -> str:
    """The namespace of its current context; empty where it names none."""
    try:
        _, context = list_kube_config_contexts()
    except (ConfigException, OSError, YAMLError):
        return ""
    return str(context["context"].get("namespace") or "")


class Api:
    """What the launcher asks of one namespace of a cluster."""

    def __init__(self, client: ApiClient, namespace: str, clock: Clock | None = None) -> None:
        self.namespace = namespace
        self.clock: Clock = clock or SystemClock()
        self._client = client
        self._server_time: float | None = None

    @property
    def server_time(self) -> float:
        """The server's own clock at its last answer, because an object's times are that clock's too. Units: seconds since 1970."""
        return self.clock.wall() if self._server_time is None else self._server_time

    def create(self, kind: JobKind, body: Object) -> Object:
        """Strict: without it an unknown field would be dropped in silence."""
        query = {"fieldValidation": "Strict", "fieldManager": FIELD_MANAGER}
        return self._json("POST", kind.path(self.namespace), query=query, body=body)

    def get(self, kind: JobKind, name: str) -> Object:
        """Raises: NotFoundError where there is none."""
        return self._json("GET", kind.path(self.namespace, name))

    def delete(self, kind: JobKind, name: str, uid: str) -> None:
        """Begins to remove one job, and no other of its name. The job stays until its pods are gone, so that whoever waits for a free
        name never has old and new ranks write to one output.

        Raises: NotFoundError or ConflictError where that very job is there no more.
        """
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}, "propagationPolicy": "Foreground"}
        self._json("DELETE", kind.path(self.namespace, name), body=options)

    def jobs(self, kind: JobKind, labels: Mapping[str, str]) -> list[Object]:
        """The jobs with these labels; none where the cluster does not know the kind."""
        try:
            return self._list(kind.path(self.namespace), labels)
        except NoSuchPathError:
            return []

    def pods(self, labels: Mapping[str, str]) -> list[Object]:
        """The pods with these labels."""
        return self._list(f"/api/v1/namespaces/{self.namespace}/pods", labels)

    def pod(self, name: str) -> Object:
        """Raises: NotFoundError where there is none."""
        return self._json("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def warnings(self) -> list[Object]:
        """The namespace's events that warn."""
        query = {"fieldSelector": "type=Warning"}
        items: list[Object] = self._json("GET", f"/api/v1/namespaces/{self.namespace}/events", query=query).get("items") or []
        return items

    def log(self, pod: str, container: str, **query: object) -> str:
        """What a container has written; `query` as the API server names it.

        Raises: RefusedError where it has not begun.
        """
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        response = self._send("GET", path, query={"container": container, **query})
        return response.data.decode("utf-8", errors="replace")

    def find(self, path: str) -> Object:
        """Any object, by its path.

        Raises: NotFoundError where there is none.
        """
        return self._json("GET", path)

    def may(self, group: str, resource: str, verb: str, *, in_cluster: bool = False) -> bool:
        """Whether this account may do that, in the namespace or in the whole cluster; `resource` as in `pods` or `pods/log`."""
        name, _, part = resource.partition("/")
        attributes = {
            "namespace": "" if in_cluster else self.namespace,
            "group": group,
            "resource": name,
            "subresource": part,
            "verb": verb,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        review = self._json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
        return bool(review["status"].get("allowed"))

    def patiently(self, ask: Callable[[], Result], *, patience_s: float, errors: tuple[type[ApiError], ...] = TEMPORARY_ERRORS) -> Result:
        """Asks again for a while after such an error; a server that has only just started soon knows every kind of object.

        Raises: what `ask` raised last.
        """
        began, wait = self.clock.now(), RETRY_S
        while True:
            try:
                return ask()
            except errors as error:
                wait = min(2 * wait, LONGEST_RETRY_S)
                pause = max(wait, retry_after_s(error))
                limit = patience_s if isinstance(error, UnavailableError) else min(patience_s, START_OF_SERVER_S)
                if self.clock.now() + pause > began + limit:
                    raise
            self.clock.sleep(pause)

    def _list(self, path: str, labels: Mapping[str, str]) -> list[Object]:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Object] = self._json("GET", path, query={"labelSelector": selector}).get("items") or []
        return items

    def _json(self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: Object | None = None) -> Object:
        response = self._send(method, path, query=query, body=body)
        try:
            answer = json.loads(response.data)
        except ValueError as error:
            raise UnavailableError(f"an answer that is no JSON ({error})") from error
        assert isinstance(answer, dict)
        return answer

    def _send(self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: Object | None = None) -> HTTPResponse:
        headers = {"Accept": "application/json, */*", "Content-Type": "application/json", "User-Agent": FIELD_MANAGER}
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        text = json.dumps(body) if body is not None else None
        try:
            # Reads the token's file again where it has been replaced.
            self._client.update_params_for_auth(headers, [], ["BearerToken"])
            # The library's own retries would sleep on a clock that is not ours.
            response: HTTPResponse = self._client.rest_client.pool_manager.request(
                method, url, body=text, headers=headers, timeout=TIMEOUT, retries=False
            )
        except (HTTPError, OSError, ConfigException) as error:
            raise UnavailableError(" ".join(str(error).split())) from error
        self._read_clock(response.headers.get("Date"))
        if response.status >= 300:
            raise _error(response)
        return response

    def _read_clock(self, date: str | None) -> None:
        try:
            self._server_time = parsedate_to_datetime(date).timestamp() if date else None
        except ValueError:
            self._server_time = None


def retry_after_s(error: ApiError) -> float:
    """How long the server asks to be left alone. Units: seconds."""
    return error.retry_after_s if isinstance(error, UnavailableError) else 0.0


def _error(response: HTTPResponse) -> ApiError:
    said = _said(response.data)
    message = said.get("message") or f"{response.status} {response.reason}"
    if response.status == 404:
        # Only an answer about an object is a Status object.
        return NotFoundError(message) if said.get("reason") == "NotFound" else NoSuchPathError(message)
    if response.status == 409:
        return ConflictError(message)
    if response.status in (401, 403):
        return RefusedError(message) if any(words in message for words in WORDS_OF_ADMISSION) else DeniedError(message)
    if response.status in TEMPORARY_STATUSES or response.status >= 500:
        after = response.headers.get("Retry-After", "")
        return UnavailableError(message, float(after) if after.isdigit() else 0.0)
    return RefusedError(message)


def _said(data: bytes) -> Object:
    try:
        answer = json.loads(data)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
