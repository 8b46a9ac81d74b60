"""What a client sends: a query, and a task by name or by example pairs; read within limits, refused in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from lavin_dit.data.images import decode_image
from lavin_dit.errors import InputError
from lavin_dit.export.pictures import squeeze
from lavin_dit.export.runtime import Bundle, Context

FIELDS = ("query", "task", "context_input", "context_target", "seed")
LARGEST_SEED = 2**32 - 1
MAX_PAIRS = 16


class TooLargeError(InputError):
    """A request that is larger than this server takes."""


@dataclass(frozen=True)
class Limits:
    """What a request may be at most. Units: bytes, megapixels of one picture, requests."""

    max_bytes: int = 64 * 2**20
    max_megapixels: float = 64.0
    max_waiting: int = 8


@dataclass(frozen=True)
class Question:
    """A query and the pairs to be shown with it; `is_nearest` where resizing the answer must not mix its colours."""

    query: Image.Image
    context: Context
    seed: int
    is_nearest: bool


async def read_question(request: Request, bundle: Bundle, limits: Limits) -> Question:
    """Reads a multipart form.

    Raises: InputError naming the field, its value and what is allowed.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        raise InputError(f"content-type is {content_type or 'not given'}: must be multipart/form-data")
    _limit(request, limits.max_bytes)
    async with request.form(max_files=2 * MAX_PAIRS + 1, max_fields=len(FIELDS)) as form:
        unknown = sorted(set(form) - set(FIELDS))
        if unknown:
            raise InputError(f"field {unknown[0]}: is not known; known are {', '.join(FIELDS)}")
        (query,) = await _pictures(form, "query", limits, exactly=1)
        context, is_nearest = await _context(form, bundle, limits)
        return Question(query, context, _seed(form), is_nearest)


def _limit(request: Request, max_bytes: int) -> None:
    """Counts what comes in, whatever the client said that it would be."""
    receive, received = request._receive, 0

    async def counted() -> object:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise TooLargeError(f"the request has more than {max_bytes} bytes, the most that this server takes")
        return message

    request._receive = counted  # type: ignore[assignment]


async def _context(form: FormData, bundle: Bundle, limits: Limits) -> tuple[Context, bool]:
    task = form.get("task")
    if "context_input" not in form and "context_target" not in form:
        if not isinstance(task, str):
            raise InputError(f"task: is missing; give one of {', '.join(bundle.tasks)}, or pairs as context_input and context_target")
        return bundle.contexts(task), bundle.tasks[task].is_nearest
    inputs, targets = await _pictures(form, "context_input", limits), await _pictures(form, "context_target", limits)
    if len(inputs) != len(targets):
        raise InputError(f"context_input has {len(inputs)} pictures and context_target {len(targets)}: must be pairs, in the same order")
    is_nearest = isinstance(task, str) and task in bundle.tasks and bundle.tasks[task].is_nearest
    return Context(_stack(inputs, bundle, is_nearest=False), _stack(targets, bundle, is_nearest=is_nearest)), is_nearest


def _stack(pictures: Sequence[Image.Image], bundle: Bundle, *, is_nearest: bool) -> "np.typing.NDArray[np.uint8]":
    return np.stack([squeeze(picture, bundle.resolution, is_nearest=is_nearest) for picture in pictures])


async def _pictures(form: FormData, name: str, limits: Limits, *, exactly: int | None = None) -> list[Image.Image]:
    parts = [part for part in form.getlist(name) if isinstance(part, UploadFile)]
    if not parts or (exactly and len(parts) != exactly):
        raise InputError(f"{name}: has {len(parts)} pictures; must have {exactly or f'1 to {MAX_PAIRS}'}")
    return [
        decode_image(
            await part.read(), label=f"{name} {part.filename or ''}".strip(), max_megapixels=limits.max_megapixels, limit="the server"
        )
        for part in parts
    ]


def _seed(form: FormData) -> int:
    value = form.get("seed", "0")
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or int(value) > LARGEST_SEED:
        raise InputError(f"seed is {value}: must be a whole number from 0 to {LARGEST_SEED}")
    return int(value)
