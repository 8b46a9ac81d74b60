"""A large JSON annotation file, walked entry by entry: each with the place of its bytes, so that it can be read again alone."""

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lavin_dit.errors import InputError

MAX_JSON_MIB = 2048
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_DAMAGE = (ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One element of one of the lists at the top of a file, and where its bytes lie."""

    section: str
    value: dict[str, Any]
    span: str


def entries_of(path: Path) -> Iterator[Entry]:
    """All objects in the lists at the top of a JSON file, in its order; one is in memory at a time, besides the text.

    Raises: InputError naming the file where it cannot be read, is too large, or is no such JSON.
    """
    text = _text_of(path)
    try:
        yield from _walk(text)
    except _DAMAGE as error:
        raise InputError(f"{path}: is no JSON with lists of annotations, or is cut off ({_reason(error)})") from error


def read_spans(path: Path, spans: list[str]) -> list[dict[str, Any]]:
    """The entries at some spans of a file, which need not be there for none.

    Raises: InputError naming the file where they are no longer there.
    """
    if not spans:
        return []
    try:
        with path.open("rb") as stream:
            return [_read_span(stream, span) for span in spans]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except _DAMAGE as error:
        raise InputError(f"{path}: has changed since it was listed: start again") from error


def _read_span(stream: BinaryIO, span: str) -> dict[str, Any]:
    start, size = (int(number) for number in span.split("+"))
    stream.seek(start)
    value = json.loads(stream.read(size))
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _text_of(path: Path) -> str:
    """One character a byte, so that places in the text are places in the file."""
    try:
        if path.stat().st_size > MAX_JSON_MIB * 2**20:
            raise InputError(f"{path}: is larger than an annotation file may be ({MAX_JSON_MIB} MiB)")
        return path.read_bytes().decode("latin-1")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _walk(text: str) -> Iterator[Entry]:
    at = _after(text, 0, "{")
    while True:
        section, at = _DECODER.raw_decode(text, _skip(text, at))
        at = _skip(text, _after(text, at, ":"))
        if text[at : at + 1] == "[":
            at = yield from _walk_list(text, str(section), at + 1)
        else:
            _, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return
        at = _after(text, at, ",")


def _walk_list(text: str, section: str, at: int) -> Generator[Entry, None, int]:
    """Returns where the list ends."""
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return at + 1
    while True:
        start = _skip(text, at)
        value, at = _DECODER.raw_decode(text, start)
        if isinstance(value, dict):
            yield Entry(section, value, f"{start}+{at - start}")
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return at + 1
        at = _after(text, at, ",")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "matches the empty text"
    return found.end()


def _after(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} is missing at byte {at}")
    return at + 1


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if isinstance(error, ValueError) and str(error) else "nested too deeply"
