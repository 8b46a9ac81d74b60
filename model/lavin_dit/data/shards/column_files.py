"""Columns of numbers in one file, in safetensors' layout: written and read in place through mmap, so that size costs no memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavin_dit.errors import InputError

FACTS = "facts"
HEADER_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 64 * 2**20
DTYPES: Mapping[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "U32": np.dtype("<u4"), "U8": np.dtype("u1")}
"""Widest first, the order in which columns lie: then each is aligned."""
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ColumnSpec:
    """Type and shape of a column."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)


def create_columns(path: Path, specs: Mapping[str, ColumnSpec], facts: Any) -> Columns:
    """A new file with columns of zeros, to be filled in place; `facts` is anything that JSON can hold."""
    header = _header(specs, facts)
    total = sum(spec.num_bytes for spec in specs.values())
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(HEADER_LENGTH_BYTES, "little") + header)
        stream.truncate(HEADER_LENGTH_BYTES + len(header) + total)
    columns, _ = _columns(np.memmap(path, np.uint8, mode="r+"))
    return columns


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]], facts: Any) -> None:
    """A file that appears whole: written beside, then renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    specs = {name: ColumnSpec(column.dtype, column.shape) for name, column in columns.items()}
    for name, column in create_columns(beside, specs, facts).items():
        column[...] = columns[name]
    beside.replace(path)


def open_columns(path: Path) -> tuple[Columns, Any]:
    """The columns, read-only and not yet in memory, and the facts.

    Raises: InputError naming the file where it is no file of columns.
    """
    try:
        return _columns(np.memmap(path, np.uint8, mode="r"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as an index ({error or type(error).__name__}); run prepare again") from error


def _header(specs: Mapping[str, ColumnSpec], facts: Any) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {FACTS: json.dumps(facts, sort_keys=True)}}
    end = 0
    for name in sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name)):
        spec = specs[name]
        begin, end = end, end + spec.num_bytes
        entries[name] = {"dtype": DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % HEADER_LENGTH_BYTES)


def _columns(mapped: NDArray[np.uint8]) -> tuple[Columns, Any]:
    content = np.asarray(mapped)
    length = int.from_bytes(content[:HEADER_LENGTH_BYTES].tobytes(), "little")
    if not 0 < length <= min(MAX_HEADER_BYTES, len(content) - HEADER_LENGTH_BYTES):
        raise ValueError("its header is cut off")
    body = content[HEADER_LENGTH_BYTES + length :]
    entries = json.loads(content[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length].tobytes())
    facts = json.loads(entries.pop("__metadata__")[FACTS])
    return {name: _column(body, entry) for name, entry in entries.items()}, facts


def _column(body: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    spec = ColumnSpec(DTYPES[entry["dtype"]], tuple(entry["shape"]))
    if not 0 <= begin <= end <= len(body) or end - begin != spec.num_bytes or min(spec.shape) < 0:
        raise ValueError("a column of it is cut off")
    return body[begin:end].view(spec.dtype).reshape(spec.shape)
