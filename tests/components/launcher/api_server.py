"""A Kubernetes API server on loopback, as far as the launcher speaks to one: real requests and answers, time that runs when it is told to.

What becomes of a job (its status, pods, logs and events) comes from a scene: a recording of a real cluster, or one written by a test.
"""

import json
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from kubernetes.client import ApiClient, Configuration

from components.launcher.api import Api

NAMESPACE = "lavin"
EPOCH = 1_790_000_000.0
KINDS = {
    "pytorchjobs": ("kubeflow.org", "v1", "PyTorchJob"),
    "trainjobs": ("trainer.kubeflow.org", "v1alpha1", "TrainJob"),
}
REMOVAL_S = 4.0
"""How long the pods of a deleted job take to go."""

Object = dict[str, Any]


class FakeClock:
    """Runs only where somebody waits, and then jumps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.alarms: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return EPOCH + self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds
        for alarm in [alarm for alarm in self.alarms if alarm[0] <= self.time]:
            self.alarms.remove(alarm)
            alarm[1]()

    def at(self, time: float, act: Callable[[], None]) -> None:
        self.alarms.append((time, act))


class Scene(Protocol):
    """What an operator and a kubelet make of a job. Units: `age` in seconds since its creation."""

    def state(self, age: float) -> Object | None:
        """What the job is to hold at that age, over what was sent; None once somebody has deleted it."""

    def pods(self, age: float, job: Object) -> list[Object]:
        """Whole pods."""

    def events(self, age: float, job: Object) -> list[Object]:
        """Whole events."""

    def log(self, pod: str, age: float, *, previous: bool) -> list[str] | int:
        """Lines, each with its time in front, or the status of a refusal."""


class Nothing:
    """No operator is there."""

    def state(self, _age: float) -> Object | None:
        return {}

    def pods(self, _age: float, _job: Object) -> list[Object]:
        return []

    def events(self, _age: float, _job: Object) -> list[Object]:
        return []

    def log(self, _pod: str, _age: float, **_query: bool) -> list[str] | int:
        return 404


@dataclass
class Fault:
    """Spoils requests: `answer` is a status, or `reset`, `silence` (the connection ends without an answer) or `garbage`."""

    answer: int | str
    method: str = ""
    path: str = ""
    times: int = 1
    until: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "injected"
    is_carried_out: bool = False
    """Whether the server does what was asked before it fails to say so."""

    def takes(self, method: str, path: str, now: float) -> bool:
        is_due = now < self.until if self.until is not None else self.times > 0
        if not is_due or self.method not in ("", method) or not re.search(self.path, path):
            return False
        self.times -= 1
        return True


@dataclass
class Answer:
    """The next answer, word for word."""

    status: int
    text: str


class RefusedError(Exception):
    """A Status object that is no success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


def timestamp(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Cluster:
    """What the server knows."""

    clock: FakeClock
    scene: Scene = field(default_factory=Nothing)
    installed: set[str] = field(default_factory=lambda: {"pytorchjobs", "trainjobs"})
    objects: dict[str, Object] = field(default_factory=dict)
    """Other objects, by path."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """What the account may not do: verb and resource."""
    faults: list[Fault] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    check: Callable[[Object], str] = lambda _body: ""
    """What is wrong with an object that is to be created."""
    skew_s: float = 0.0
    """By how much the server's clock is ahead of the launcher's."""
    jobs: dict[tuple[str, str], Object] = field(default_factory=dict)
    born: dict[str, float] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], Object | None]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    version: int = 100
    most_jobs: int = 0

    def put(self, body: Object, plural: str = "pytorchjobs", *, age: float = 0.0) -> Object:
        """A job, as if it had been created so long ago."""
        self.version += 1
        now = self.clock.time - age
        server_set = {
            "uid": str(uuid.uuid4()),
            "resourceVersion": str(self.version),
            "creationTimestamp": timestamp(EPOCH + now + self.skew_s),
            "generation": 1,
        }
        job = json.loads(json.dumps(body))
        job["metadata"] = {"namespace": NAMESPACE, **job["metadata"], **server_set}
        self.jobs[plural, job["metadata"]["name"]] = job
        self.born[job["metadata"]["uid"]] = now
        self.most_jobs = max(self.most_jobs, len(self.living()))
        return job

    def living(self) -> list[Object]:
        """The jobs that are there now, as they are now."""
        for key, job in list(self.jobs.items()):
            deleted_at = job.get("deleted at")
            if (deleted_at is not None and self.clock.time >= deleted_at + REMOVAL_S) or self.scene.state(self._age(job)) is None:
                del self.jobs[key]
        return [self.shown(job) for job in self.jobs.values()]

    def shown(self, job: Object) -> Object:
        state = self.scene.state(self._age(job)) or {}
        shown = {key: value for key, value in job.items() if key != "deleted at"}
        shown["metadata"] = dict(job["metadata"])
        if "deleted at" in job:
            shown["metadata"] |= {"deletionTimestamp": timestamp(EPOCH + job["deleted at"]), "finalizers": ["foregroundDeletion"]}
        if "suspend" in state:
            shown["spec"] = json.loads(json.dumps(job["spec"]))
            (shown["spec"]["runPolicy"] if job["kind"] == "PyTorchJob" else shown["spec"])["suspend"] = state["suspend"]
        if state.get("status"):
            shown["status"] = json.loads(json.dumps(state["status"]).replace("JOB", job["metadata"]["name"]))
        return shown

    def delete(self, job: Object) -> None:
        job.setdefault("deleted at", self.clock.time)

    def _age(self, job: Object) -> float:
        return self.clock.time - self.born[job["metadata"]["uid"]]

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None) -> Object | str:
        """Raises: RefusedError."""
        self.living()
        if found := re.fullmatch(rf"/apis/([^/]+)/([^/]+)/namespaces/{NAMESPACE}/(pytorchjobs|trainjobs)(?:/([^/]+))?", path):
            return self._job_request(method, found[3], found[4], query, body)
        if method == "POST" and path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            assert body is not None
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            assert ("namespace" in asked) == (asked["resource"] != "clustertrainingruntimes")
            return {**body, "status": {"allowed": (asked["verb"], resource) not in self.denied}}
        assert method == "GET", (method, path)
        if path in self.objects:
            return self.objects[path]
        if found := re.fullmatch(r"/apis/([^/]+)/([^/]+)", path):
            return self._discovery(found[1], found[2])
        if found := re.fullmatch(rf"/api/v1/namespaces/{NAMESPACE}/(pods|events)(?:/([^/]+))?(/log)?", path):
            return self._core_request(found[1], found[2], query, is_log=bool(found[3]))
        if re.fullmatch(r"/apis/[^/]+/[^/]+/(namespaces/[^/]+/)?[a-z]+/[^/]+", path) and f"/apis/{path.split('/')[2]}" in self.objects | {
            "/apis/trainer.kubeflow.org": {}
        }:
            raise RefusedError(404, "NotFound", f"{path} not found")
        raise RefusedError(404, "", "404 page not found")

    def _discovery(self, group: str, version: str) -> Object:
        resources = [
            {"name": plural, "kind": kind, "namespaced": True}
            for plural, (its_group, its_version, kind) in KINDS.items()
            if (its_group, its_version) == (group, version) and plural in self.installed
        ]
        if not resources:
            raise RefusedError(404, "", "404 page not found")
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}", "resources": resources}

    def _job_request(self, method: str, plural: str, name: str | None, query: dict[str, str], body: Object | None) -> Object:
        group, _, kind = KINDS[plural]
        if plural not in self.installed:
            raise RefusedError(404, "", "404 page not found")
        verb = {"POST": "create", "DELETE": "delete"}.get(method, "get" if name else "list")
        if (verb, plural) in self.denied:
            raise RefusedError(
                403, "Forbidden", f'{plural}.{group} is forbidden: User "system:serviceaccount:lavin:default" cannot {verb} it'
            )
        if method == "POST":
            assert body is not None
            return self._create(plural, kind, query, body)
        if name is None:
            return {"kind": f"{kind}List", "items": [job for job in self.living() if job["kind"] == kind and _matches(job, query)]}
        job = self.jobs.get((plural, name))
        if job is None:
            raise RefusedError(404, "NotFound", f'{plural}.{group} "{name}" not found')
        if method == "DELETE":
            assert body is not None
            wanted = body["preconditions"]["uid"]
            if wanted != job["metadata"]["uid"]:
                raise RefusedError(409, "Conflict", f"the UID in the precondition ({wanted}) does not match the UID in record")
            assert body["propagationPolicy"] == "Foreground"
            self.delete(job)
        return self.shown(job)

    def _create(self, plural: str, kind: str, query: dict[str, str], body: Object) -> Object:
        assert query["fieldManager"] == "lavin-launcher"
        name = body["metadata"]["name"]
        if (plural, name) in self.jobs:
            raise RefusedError(409, "AlreadyExists", f'{plural}.{KINDS[plural][0]} "{name}" already exists')
        if wrong := self.check(body):
            assert query["fieldValidation"] == "Strict"
            raise RefusedError(400, "BadRequest", f"{kind} cannot be handled: strict decoding error: {wrong}")
        return self.put(body, plural)

    def _core_request(self, resource: str, name: str | None, query: dict[str, str], *, is_log: bool) -> Object | str:
        if resource == "events":
            assert query == {"fieldSelector": "type=Warning"}
            return {
                "items": [event for job in self.living() for event in self.scene.events(self._age(job), job) if event["type"] == "Warning"]
            }
        pods = [pod for job in self.living() for pod in self.scene.pods(self._age(job), job)]
        if name is None:
            return {"items": [pod for pod in pods if _matches(pod, query)]}
        found = next((pod for pod in pods if pod["metadata"]["name"] == name), None)
        if found is None:
            raise RefusedError(404, "NotFound", f'pods "{name}" not found')
        return self._log(found, query) if is_log else found

    def _log(self, pod: Object, query: dict[str, str]) -> str:
        age = max(self._age(job) for job in self.jobs.values())
        lines = self.scene.log(pod["metadata"]["name"], age, previous=query.get("previous") == "true")
        if isinstance(lines, int):
            reason = {400: "BadRequest", 404: "NotFound"}[lines]
            raise RefusedError(lines, reason, f'container in pod "{pod["metadata"]["name"]}" is waiting to start')
        since = query.get("sinceTime", "")
        lines = [line for line in lines if line[:19] >= since[:19]][-int(query["tailLines"]) :]
        texts = lines if query.get("timestamps") == "true" else [line.partition(" ")[2] for line in lines]
        return "".join(f"{text}\n" for text in texts)


def _matches(item: Object, query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    pairs = [pair.partition("=") for pair in query.get("labelSelector", "").split(",") if pair]
    return all(labels.get(key) == value for key, _, value in pairs)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        cluster = self.cluster
        cluster.tokens.append(self.headers.get("Authorization"))
        cluster.requests.append((self.command, url.path, query, body))
        if cluster.answers:
            answer = cluster.answers.pop(0)
            self._send(answer.status, answer.text.encode())
            return
        fault = next((fault for fault in cluster.faults if fault.takes(self.command, url.path, cluster.clock.time)), None)
        if fault and not fault.is_carried_out:
            self._spoil(fault)
            return
        try:
            found = cluster.answer(self.command, url.path, query, body)
        except RefusedError as refusal:
            self._refuse(refusal)
            return
        if fault:
            self._spoil(fault)
            return
        data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self._send(201 if self.command == "POST" else 200, data)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - as the standard library calls them

    def _refuse(self, refusal: RefusedError) -> None:
        if not refusal.reason:
            self._send(refusal.code, f"{refusal}\n".encode())
            return
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(refusal),
            "reason": refusal.reason,
        }
        self._send(refusal.code, json.dumps(status | {"code": refusal.code}).encode())

    def _spoil(self, fault: Fault) -> None:
        if isinstance(fault.answer, int):
            reason = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 429: "TooManyRequests"}.get(fault.answer, "InternalError")
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": fault.message, "reason": reason}
            self._send(fault.answer, json.dumps(status | {"code": fault.answer}).encode(), fault.headers)
        elif fault.answer == "garbage":
            self._send(200, b'{"kind": "PyTorch')
        elif fault.answer == "silence":
            self.close_connection = True
        else:
            self.close_connection = True
            # Unread buffers and no lingering: the other side sees a reset.
            self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            self.connection.close()

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(EPOCH + self.cluster.clock.time + self.cluster.skew_s, usegmt=True))
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was broken on purpose."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving(cluster: Cluster) -> Iterator[Api]:
    """A client of the real library that speaks to the cluster."""
    handler = type("Handler", (_Handler,), {"cluster": cluster, "disable_nagle_algorithm": True})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.server_port}"
    client = ApiClient(configuration)
    try:
        yield Api(client, NAMESPACE, cluster.clock)
    finally:
        client.close()
        client.rest_client.pool_manager.clear()
        server.shutdown()
        server.server_close()
        thread.join()
