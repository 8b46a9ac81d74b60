"""What a client sends: a query, and a task by name or by example pairs; read within limits, refused in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from lavin_dit.data.raw.images import decode_image
from lavin_dit.errors import InputError
from lavin_dit.export.pictures import squeeze
from lavin_dit.export.pixels import Pixels
from lavin_dit.export.runtime import Bundle, Context, Nearest

FORM = "multipart/form-data"
FIELDS = ("query", "task", "context_input", "context_target", "seed")
LARGEST_SEED = 2**32 - 1
MAX_PAIRS = 16

Size = tuple[int, int]


class TooLargeError(InputError):
    """A request that is larger than this server takes."""


class NoFormError(InputError):
    """A request of another kind than this server reads."""


@dataclass(frozen=True)
class Limits:
    """What a request may be at most. Units: bytes, megapixels of one picture, requests, seconds until it has come in."""

    max_bytes: int = 64 * 2**20
    max_megapixels: float = 64.0
    max_waiting: int = 8
    receive_s: float = 60.0


@dataclass(frozen=True)
class Question:
    """A query at the model's resolution and the pairs to be shown with it.

    `size` is the query's own (width, height); `is_nearest` where resizing the answer must not mix its colours.
    """

    query: Pixels
    size: Size
    context: Context
    seed: int
    is_nearest: bool


async def read_form(request: Request, limits: Limits) -> FormData:
    """Takes a multipart form in; large files go to disk. The caller closes it.

    Raises: NoFormError, TooLargeError; Starlette's HTTPException where the form is malformed.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise NoFormError(f"content-type is {content_type or 'not given'}: must be {FORM}")
    counted = Request(request.scope, _counted(request.receive, limits.max_bytes))
    return await counted.form(max_files=2 * MAX_PAIRS + 1, max_fields=len(FIELDS))


def _counted(receive: Receive, max_bytes: int) -> Receive:
    """Counts what comes in, whatever the client said that it would be."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise TooLargeError(f"the request has more than {max_bytes} bytes, the most that this server takes")
        return message

    return counted


def understand(form: FormData, bundle: Bundle, limits: Limits) -> Question:
    """Decodes a form, a picture at a time: never are two held at their full size. Takes seconds for large ones.

    Raises: InputError naming the field, its value and what is allowed.
    """
    unknown = sorted(set(form) - set(FIELDS))
    if unknown:
        raise InputError(f"field {unknown[0]}: is not known; known are {', '.join(FIELDS)}")
    seed = _seed(form)
    task = form.get("task")
    nearest = bundle.nearest(task if isinstance(task, str) else None)
    (query,), (size,) = _pictures(form, "query", bundle, limits, exactly=1, is_nearest=nearest.inputs)
    return Question(query, size, _context(form, bundle, limits, nearest), seed, nearest.targets)


def _context(form: FormData, bundle: Bundle, limits: Limits, nearest: Nearest) -> Context:
    task = form.get("task")
    if "context_input" not in form and "context_target" not in form:
        if not isinstance(task, str):
            raise InputError(f"task: is missing; give one of {', '.join(bundle.tasks)}, or pairs as context_input and context_target")
        return bundle.contexts(task)
    inputs, sizes = _pictures(form, "context_input", bundle, limits, is_nearest=nearest.inputs)
    targets, target_sizes = _pictures(form, "context_target", bundle, limits, is_nearest=nearest.targets)
    _check_pairs(sizes, target_sizes)
    return Context(inputs, targets)


def _check_pairs(inputs: Sequence[Size], targets: Sequence[Size]) -> None:
    if len(inputs) != len(targets):
        raise InputError(f"context_input has {len(inputs)} pictures and context_target {len(targets)}: must be pairs, in the same order")
    for number, ((width, height), (other_width, other_height)) in enumerate(zip(inputs, targets, strict=True), 1):
        if (width, height) != (other_width, other_height):
            is_ = f"is {other_width}x{other_height}, but its input is {width}x{height}"
            raise InputError(f"context_target: picture {number} {is_}: both must have one size")


def _pictures(
    form: FormData, name: str, bundle: Bundle, limits: Limits, *, exactly: int | None = None, is_nearest: bool = False
) -> tuple[Pixels, list[Size]]:
    """Pictures at the model's resolution, and their own sizes."""
    parts = [part for part in form.getlist(name) if isinstance(part, UploadFile)]
    if not parts or (exactly and len(parts) != exactly) or len(parts) > MAX_PAIRS:
        raise InputError(f"{name}: has {len(parts)} pictures; must have {exactly or f'1 to {MAX_PAIRS}'}")
    squeezed, sizes = [], []
    for part in parts:
        image = _decode(part, f"{name} {part.filename or ''}".strip(), limits)
        squeezed.append(squeeze(image, bundle.resolution, is_nearest=is_nearest))
        sizes.append(image.size)
    return np.stack(squeezed), sizes


def _decode(part: UploadFile, label: str, limits: Limits) -> Image.Image:
    return decode_image(part.file.read(), label=label, max_megapixels=limits.max_megapixels, limit="the server")


def _seed(form: FormData) -> int:
    value = form.get("seed", "0")
    is_whole = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(LARGEST_SEED))
    if not isinstance(value, str) or not is_whole or int(value) > LARGEST_SEED:
        shown = value[:20] if isinstance(value, str) else "a file"
        raise InputError(f"seed is {shown}: must be a whole number from 0 to {LARGEST_SEED}")
    return int(value)
