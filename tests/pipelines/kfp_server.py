"""A KFP API server on loopback: holds every request and every answer of its own against the official Swagger file, and breaks to order."""

import json
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema
import yaml

SWAGGER = "kfp_api_v2beta1.swagger.json"
EPOCH = 1_790_000_000


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Contract:
    """The Swagger file, with every object closed: a field that it does not know is an error."""

    def __init__(self, folder: Path) -> None:
        self._document = json.loads((folder / SWAGGER).read_text())
        for definition in self._document["definitions"].values():
            if definition.get("properties"):
                definition.setdefault("additionalProperties", False)
        self._operations = [
            (method.upper(), re.compile(re.sub(r"\\\{[^}]+\\\}", "([^/:]+)", re.escape(path)) + "$"), operation)
            for path, methods in self._document["paths"].items()
            for method, operation in methods.items()
        ]

    def operation(self, method: str, path: str) -> tuple[dict[str, Any], list[str]]:
        """What the method and path mean, and the identifiers in the path. Fixed paths win over patterns."""
        found = [
            (operation, match.groups())
            for verb, pattern, operation in self._operations
            if verb == method and (match := pattern.match(path))
        ]
        if not found:
            raise RefusedError(404, "Not Found")
        operation, identifiers = min(found, key=lambda pair: len(pair[1]))
        return operation, [unquote(value) for value in identifiers]

    def check(self, value: object, schema: dict[str, Any]) -> None:
        """Raises: jsonschema.ValidationError where the value is not of the schema."""
        # jsonschema.validate would check the whole Swagger file each time as well.
        whole = {**schema, "definitions": self._document["definitions"]}
        jsonschema.Draft4Validator(whole, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER).validate(value)

    def check_request(self, operation: dict[str, Any], query: dict[str, str], body: object, upload: str | None) -> None:
        """Raises: jsonschema.ValidationError where a parameter is unknown, missing or of another type."""
        known = {parameter["name"]: parameter for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
        for name, text in query.items():
            if name not in known:
                raise jsonschema.ValidationError(f"query parameter {name} is not in {sorted(known)}")
            self.check(int(text) if known[name]["type"] == "integer" else text, {"type": known[name]["type"]})
            if name == "filter" and text:
                self.check(json.loads(text), {"$ref": "#/definitions/v2beta1Filter"})
        expected = {parameter["in"]: parameter for parameter in operation.get("parameters", [])}
        if "body" in expected:
            self.check(body, expected["body"]["schema"])
        elif body is not None:
            raise jsonschema.ValidationError(f"{operation['operationId']} takes no body")
        if "formData" in expected and upload != expected["formData"]["name"]:
            raise jsonschema.ValidationError(f"the form must hold {expected['formData']['name']}, and holds {upload}")


@dataclass
class Fault:
    """What happens instead of an answer: a status, or `reset`, `slow`, `page`, `login` or `garbage`; as often as `times` says."""

    kind: int | str
    times: int = 1_000_000
    path: str = ""
    message: str = "out of order"


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: Message
    upload: bytes = b""


@dataclass
class Store:
    """What the server remembers."""

    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring_runs: dict[str, dict[str, Any]] = field(default_factory=dict)


class KfpServer:
    """The server. `script` holds what successive looks at a run find: its state, and its tasks."""

    def __init__(self, schemas: Path, *, multi_user: bool = False, token: str = "") -> None:
        self.contract = _contract(schemas)
        self.multi_user, self.token = multi_user, token
        self.store = Store()
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.script: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.before_answer: Callable[[Request], None] = lambda _: None
        self._clock = EPOCH
        self._port = 0
        self.start()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listens, on the same port as before where it has listened before."""
        handler = type("Handler", (_Handler,), {"kfp": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No longer listens; what it knows it keeps. Stopping twice is once."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._thread.join()

    def break_down(self, kind: int | str, **more: Any) -> None:
        self.faults.append(Fault(kind, **more))

    def sent(self, method: str, path: str) -> list[Request]:
        """The requests of a method whose path ends like this."""
        return [request for request in self.requests if request.method == method and request.path.endswith(path)]

    def now(self) -> str:
        self._clock += 1
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock))

    def answer(self, request: Request) -> dict[str, Any]:
        """Raises: RefusedError."""
        operation, identifiers = self.contract.operation(request.method, request.path)
        try:
            upload = "uploadfile" if request.upload else None
            self.contract.check_request(operation, request.query, request.body, upload)
        except (jsonschema.ValidationError, ValueError) as error:
            self.violations.append(f"{request.method} {request.path}: {error}")
            raise RefusedError(400, f"violates the schema: {error}") from error
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthenticated")
        work = getattr(self, f"_{operation['operationId'].partition('_')[2] or operation['operationId']}".lower(), None)
        if work is None:
            raise RefusedError(501, f"{operation['operationId']} is not made")
        result: dict[str, Any] = work(request, *identifiers)
        self.contract.check(result, operation["responses"]["200"]["schema"])
        return result

    def _gethealthz(self, _: Request) -> dict[str, Any]:
        return {"multi_user": self.multi_user}

    def _getpipelinebyname(self, request: Request, name: str) -> dict[str, Any]:
        namespace = request.query.get("namespace", "")
        found = [item for item in self.store.pipelines.values() if (item["name"], item.get("namespace", "")) == (name, namespace)]
        if not found:
            raise RefusedError(
                404, f"Get pipeline by name and namespace failed: ResourceNotFoundError: Pipeline {name} not found.\ngoroutine 1"
            )
        return found[0]

    def _createpipeline(self, request: Request) -> dict[str, Any]:
        name = request.body.get("name") or request.body["display_name"]
        self._refuse_namespace(request.body.get("namespace"))
        if any(item["name"] == name for item in self.store.pipelines.values()):
            raise RefusedError(409, f"The name {name} already exists")
        return self._keep(self.store.pipelines, "pipeline_id", {**request.body, "name": name})

    def _uploadpipelineversion(self, request: Request) -> dict[str, Any]:
        pipeline, name = request.query["pipelineid"], request.query["name"]
        if pipeline not in self.store.pipelines or len(name) > 127:
            raise RefusedError(400, "Failed to create a pipeline version")
        if any((item["pipeline_id"], item["name"]) == (pipeline, name) for item in self.store.versions.values()):
            raise RefusedError(409, "Failed to create a pipeline version")
        documents = json.loads(_as_json(request.upload))
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        version = {"pipeline_id": pipeline, "name": name, "display_name": name, "pipeline_spec": spec}
        return self._keep(self.store.versions, "pipeline_version_id", version | {"description": request.query.get("description", "")})

    def _listpipelineversions(self, request: Request, pipeline: str) -> dict[str, Any]:
        """As servers may that keep versions elsewhere, without what each version holds."""
        versions = [version for version in self.store.versions.values() if version["pipeline_id"] == pipeline]
        bare = [{key: value for key, value in version.items() if key != "pipeline_spec"} for version in versions]
        return self._page(request, "pipeline_versions", bare)

    def _getpipelineversion(self, _: Request, pipeline: str, version: str) -> dict[str, Any]:
        found = self._find(self.store.versions, version, "pipeline version")
        assert found["pipeline_id"] == pipeline
        return found

    def _listexperiments(self, request: Request) -> dict[str, Any]:
        self._refuse_namespace(request.query.get("namespace"))
        return self._page(request, "experiments", list(self.store.experiments.values()))

    def _createexperiment(self, request: Request) -> dict[str, Any]:
        self._refuse_namespace(request.body.get("namespace"))
        return self._keep(self.store.experiments, "experiment_id", {**request.body, "storage_state": "AVAILABLE"})

    def _createrun(self, request: Request) -> dict[str, Any]:
        self._check_source(request.body)
        return self._keep(self.store.runs, "run_id", {**request.body, "state": "PENDING"})

    def _getrun(self, _: Request, run: str) -> dict[str, Any]:
        found = self._find(self.store.runs, run, "run")
        if self.script:
            found |= self.script.pop(0)
        return found

    def _createrecurringrun(self, request: Request) -> dict[str, Any]:
        self._check_source(request.body)
        trigger = request.body["trigger"]
        if not 1 <= int(request.body["max_concurrency"]) <= 10:
            raise RefusedError(400, "Max concurrency of a recurring run must be at least 1 and at most 10")
        if "cron_schedule" in trigger and len(trigger["cron_schedule"]["cron"].split()) != 6:
            raise RefusedError(400, "Schedule cron is not a supported format")
        status = "ENABLED" if request.body["mode"] == "ENABLE" else "DISABLED"
        return self._keep(self.store.recurring_runs, "recurring_run_id", {**request.body, "status": status})

    def _listrecurringruns(self, request: Request) -> dict[str, Any]:
        self._refuse_namespace(request.query.get("namespace"))
        return self._page(request, "recurringRuns", list(self.store.recurring_runs.values()))

    def _deleterecurringrun(self, _: Request, recurring_run: str) -> dict[str, Any]:
        self._find(self.store.recurring_runs, recurring_run, "recurring run")
        del self.store.recurring_runs[recurring_run]
        return {}

    def _refuse_namespace(self, namespace: str | None) -> None:
        if namespace and not self.multi_user:
            raise RefusedError(400, "In single-user mode, a request shouldn't contain a namespace")
        if self.multi_user and not namespace:
            raise RefusedError(400, "In multi-user mode, a request needs a namespace")

    def _check_source(self, body: dict[str, Any]) -> None:
        """What a real server checks of a run: where its pipeline is from, its experiment, its parameters."""
        if body["experiment_id"] not in self.store.experiments:
            raise RefusedError(404, f"Experiment {body['experiment_id']} not found")
        reference = body.get("pipeline_version_reference")
        if (reference is None) == ("pipeline_spec" not in body):
            raise RefusedError(400, "A run needs one pipeline source")
        spec = (
            self._find(self.store.versions, reference["pipeline_version_id"], "version")["pipeline_spec"]
            if reference
            else body["pipeline_spec"]
        )
        known = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
        if unknown := set(body["runtime_config"].get("parameters", {})) - set(known):
            raise RefusedError(400, f"InvalidInputError: parameter(s) {sorted(unknown)} are not in the pipeline\ngoroutine 7")

    def _keep(self, where: dict[str, dict[str, Any]], key: str, item: dict[str, Any]) -> dict[str, Any]:
        identifier = str(uuid.uuid4())
        where[identifier] = {key: identifier, **item, "created_at": self.now()}
        return where[identifier]

    def _find(self, where: dict[str, dict[str, Any]], identifier: str, what: str) -> dict[str, Any]:
        if identifier not in where:
            raise RefusedError(404, f"Failed to get a {what}: ResourceNotFoundError: {identifier} not found")
        return where[identifier]

    def _page(self, request: Request, name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        if request.query.get("filter"):
            (predicate,) = json.loads(request.query["filter"])["predicates"]
            assert predicate["operation"] == "EQUALS"
            items = [item for item in items if item[predicate["key"]] == predicate["string_value"]]
        if sort := request.query.get("sort_by"):
            key, _, order = sort.partition(" ")
            items = sorted(items, key=lambda item: str(item[key]), reverse=order == "desc")
        first, size = int(request.query.get("page_token") or 0), int(request.query.get("page_size") or 10)
        page: dict[str, Any] = {name: items[first : first + size], "total_size": len(items)} if items else {}
        return page | ({"next_page_token": str(first + size)} if first + size < len(items) else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends connections that were kept for further requests, as the end of a process does."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    kfp: KfpServer
    protocol_version = "HTTP/1.1"
    # Head and body in two packets would wait 40 ms for each other.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        request = Request(self.command, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), None, self.headers)
        if self.headers.get_content_type() == "multipart/form-data":
            request.upload = next(_form(self.headers, body))
        elif body and body != b"null":
            request.body = json.loads(body)
        self.kfp.requests.append(request)
        self.kfp.before_answer(request)
        if not self._break(request):
            self._answer(request)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def _answer(self, request: Request) -> None:
        log = self.kfp.logs.get(request.path)
        if log is not None:
            self._send(200, log, kind="text/plain")
            return
        try:
            self._send(200, json.dumps(self.kfp.answer(request)))
        except RefusedError as refused:
            self._send(refused.status, json.dumps({"code": 3, "message": str(refused), "details": []}))
        except Exception as error:  # noqa: BLE001 - a mistake of this server, which the test is to see
            self.kfp.violations.append(f"{request.method} {request.path}: {error!r}")
            self._send(500, json.dumps({"message": f"{error!r}"}))

    def _break(self, request: Request) -> bool:
        fault = next((fault for fault in self.kfp.faults if fault.times and re.search(fault.path, request.path)), None)
        if fault is None:
            return False
        fault.times -= 1
        if fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault.kind == "slow":
            time.sleep(1.0)
            self.close_connection = True
        elif fault.kind == "page":
            self._send(200, "<!doctype html><title>Log in</title>", kind="text/html")
        elif fault.kind == "login":
            self._send(302, "", location="https://login.example/auth?state=secret")
        elif fault.kind == "garbage":
            self._send(500, b"\xff\xfe <not utf-8>")
        else:
            assert isinstance(fault.kind, int)
            self._send(fault.kind, json.dumps({"code": 2, "message": fault.message}))
        return True

    def _send(self, status: int, text: str | bytes, *, kind: str = "application/json", **headers: str) -> None:
        body = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@cache
def _contract(folder: Path) -> Contract:
    return Contract(folder)


@cache
def _as_json(text: bytes) -> str:
    """YAML of one or more documents; parsing takes longer than all else here."""
    return json.dumps(list(yaml.safe_load_all(text)))


def _form(headers: Message, body: bytes) -> Iterator[bytes]:
    """The file of a form; its name must end so that the server knows it for YAML."""
    parsed = BytesParser().parsebytes(f"content-type: {headers['content-type']}\r\n\r\n".encode() + body)
    for part in parsed.walk():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            assert str(part.get_filename()).endswith(".yaml")
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            yield content
