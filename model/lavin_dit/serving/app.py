"""The server of one bundle: predictions, what it can do, whether it is well, and numbers for Prometheus."""

import asyncio
import io
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lavin_dit.errors import InputError
from lavin_dit.export.pictures import stretch
from lavin_dit.export.runtime import Bundle
from lavin_dit.serving.form import Limits, NoFormError, TooLargeError, read_form, understand

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
CLIENT_GONE = 499
MISTAKES = (InputError, HTTPException, TimeoutError, ClientDisconnect)
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Server:
    """A bundle behind HTTP. One prediction runs at a time, because a bundle is for one thread; a few more may wait."""

    def __init__(self, bundle: Bundle, limits: Limits) -> None:
        self._bundle, self._limits = bundle, limits
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._waiting = 0
        self.registry = CollectorRegistry()
        self._requests = Counter("lavin_predictions", "Predictions asked for, by how they ended.", ["status"], registry=self.registry)
        self._seconds = Histogram(
            "lavin_prediction_seconds", "Time from a question to its answer.", buckets=SECONDS, registry=self.registry
        )
        self._in_flight = Gauge("lavin_predictions_in_flight", "Predictions that run or wait.", registry=self.registry)

    async def predict(self, request: Request) -> Response:
        """The answer to a picture, as PNG at the picture's own size."""
        if self._waiting >= self._limits.max_waiting:
            return self.refuse(503, f"{self._waiting} predictions run or wait already; try again", {"Retry-After": str(RETRY_AFTER_S)})
        self._waiting += 1
        self._in_flight.set(self._waiting)
        started = time.monotonic()
        try:
            answer = await self._read_and_answer(request)
        except MISTAKES as error:
            return self.refuse(*_told(error, self._limits))
        finally:
            self._waiting -= 1
            self._in_flight.set(self._waiting)
        self._seconds.observe(time.monotonic() - started)
        self._requests.labels("200").inc()
        return Response(answer, media_type="image/png")

    async def _read_and_answer(self, request: Request) -> bytes:
        async with asyncio.timeout(self._limits.receive_s):
            form = await read_form(request, self._limits)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, self._answer, form)
        finally:
            await form.close()

    def _answer(self, form: FormData) -> bytes:
        """In the worker: decoding takes as long as predicting, and `/healthz` must be answered meanwhile."""
        question = understand(form, self._bundle, self._limits)
        context = question.context
        (answer,) = self._bundle.predict(question.query[None], context.inputs[None], context.targets[None], seed=question.seed)
        content = io.BytesIO()
        stretch(answer, question.size, is_nearest=question.is_nearest).save(content, format="PNG")
        return content.getvalue()

    def refuse(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
        """One sentence as JSON, counted."""
        self._requests.labels(str(status)).inc()
        return JSONResponse({"error": sentence}, status_code=status, headers=headers)

    async def tasks(self, _request: Request) -> Response:
        """The tasks that the bundle holds example pairs for."""
        facts = self._bundle.tasks.values()
        tasks = [{"name": task.name, "title": task.title, "summary": task.summary, "kind": task.kind} for task in facts]
        return JSONResponse({"resolution": self._bundle.resolution, "num_pairs": self._bundle.num_pairs, "tasks": tasks})

    async def metrics(self, _request: Request) -> Response:
        """Numbers for Prometheus."""
        return Response(generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _told(error: Exception, limits: Limits) -> tuple[int, str]:
    """The status and the sentence for what a client did wrong."""
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, TimeoutError):
        return 408, f"the request did not come in within {limits.receive_s:g} s"
    if isinstance(error, ClientDisconnect):
        return CLIENT_GONE, "the client has gone"
    status = 415 if isinstance(error, NoFormError) else 413 if isinstance(error, TooLargeError) else 422
    return status, str(error)


async def _well(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _elsewhere(_request: Request, error: Exception) -> Response:
    """An address or a method that this server does not have."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def make_app(bundle: Bundle, limits: Limits | None = None) -> Starlette:
    """The web application; the bundle has been opened, and its hashes checked, before anything is answered."""
    server = Server(bundle, limits or Limits())

    async def failed(_request: Request, _error: Exception) -> Response:
        return server.refuse(500, "the server failed; its log says why")

    return Starlette(
        routes=[
            Route("/healthz", _well),
            Route("/readyz", _well),
            Route("/metrics", server.metrics),
            Route("/v1/tasks", server.tasks),
            Route("/v1/predict", server.predict, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _elsewhere, Exception: failed},
    )
