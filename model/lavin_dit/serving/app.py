"""The server of one bundle: predictions, what it can do, whether it is well, and numbers for Prometheus."""

import asyncio
import io
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lavin_dit.errors import InputError
from lavin_dit.export.pictures import squeeze, stretch
from lavin_dit.export.runtime import Bundle
from lavin_dit.serving.form import Limits, Question, TooLargeError, read_question

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
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
            return self._refuse(503, f"{self._waiting} predictions run or wait already; try again", {"Retry-After": str(RETRY_AFTER_S)})
        self._waiting += 1
        self._in_flight.set(self._waiting)
        started = time.monotonic()
        try:
            question = await read_question(request, self._bundle, self._limits)
            answer = await asyncio.get_running_loop().run_in_executor(self._worker, self._answer, question)
        except TooLargeError as error:
            return self._refuse(413, str(error))
        except InputError as error:
            return self._refuse(422, str(error))
        finally:
            self._waiting -= 1
            self._in_flight.set(self._waiting)
        self._seconds.observe(time.monotonic() - started)
        self._requests.labels("200").inc()
        return Response(answer, media_type="image/png")

    def _answer(self, question: Question) -> bytes:
        query = squeeze(question.query, self._bundle.resolution)[None]
        (answer,) = self._bundle.predict(query, question.context.inputs[None], question.context.targets[None], seed=question.seed)
        content = io.BytesIO()
        stretch(answer, question.query.size, is_nearest=question.is_nearest).save(content, format="PNG")
        return content.getvalue()

    def _refuse(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
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


async def _well(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def make_app(bundle: Bundle, limits: Limits | None = None) -> Starlette:
    """The web application; the bundle has been opened, and its hashes checked, before anything is answered."""
    server = Server(bundle, limits or Limits())
    return Starlette(
        routes=[
            Route("/healthz", _well),
            Route("/readyz", _well),
            Route("/metrics", server.metrics),
            Route("/v1/tasks", server.tasks),
            Route("/v1/predict", server.predict, methods=["POST"]),
        ]
    )
