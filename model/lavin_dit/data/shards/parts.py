"""Parts of a split: samples that one process writes in one go, and that need not be written again once they are whole.

A part is a tar without its end mark, and beside it a file of columns, which is written last and knows the tar's hash.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lavin_dit.data.shards.column_files import Columns, open_columns, write_columns
from lavin_dit.data.shards.picture_files import PictureFormat
from lavin_dit.data.shards.samples import Sample, SampleWriter
from lavin_dit.errors import InputError
from lavin_dit.hashing import file_sha256


@dataclass(frozen=True)
class PartFiles:
    """Where a part lies."""

    folder: Path
    name: str

    @property
    def body(self) -> Path:
        return self.folder / f"{self.name}.tar"

    @property
    def columns(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def open(self) -> tuple[Columns, dict[str, Any]]:
        """The columns, and the facts: `groups` as an index has them, the body's `sha256`, and whatever else was noted."""
        return open_columns(self.columns)


class PartWriter:
    """A context manager that writes a part; without a clean exit there is none. What is in `notes` by then is kept among its facts."""

    def __init__(self, files: PartFiles, *, num_frames: int, photo_format: PictureFormat) -> None:
        self.notes: dict[str, Any] = {}
        self._files = files
        self._stream = files.body.open("wb")
        self._samples = SampleWriter(self._stream, num_frames=num_frames, photo_format=photo_format)

    def add(self, sample: Sample) -> None:
        """Appends one sample."""
        self._samples.add(sample)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()
        if error is None:
            columns, groups = self._samples.columns()
            facts = {"groups": groups, "sha256": file_sha256(self._files.body), **self.notes}
            write_columns(self._files.columns, columns, facts)


def is_finished(files: PartFiles) -> bool:
    """Whether a part is whole; one whose body is gone is too, since a body goes only when all of it lies in shards."""
    if not files.columns.exists():
        return False
    try:
        _, facts = files.open()
    except InputError:
        return False
    return not files.body.exists() or file_sha256(files.body) == facts["sha256"]
