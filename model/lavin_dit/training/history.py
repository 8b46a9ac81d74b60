"""A run's figures by step, in files that survive restarts and ways back without gaps or duplicates."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavin_dit.errors import TrainingDivergedError

RECORD_FILE = "metrics.jsonl"
"""Everything, a JSON object a line."""
CURVES_FILE = "history.csv"
"""What is drawn, of the steps that were learnt from: the losses, the gradient's norm and the learning rate."""

Row = dict[str, Any]


class History:
    """Rows by step, whose `losses`, `grad_norm` and `learning_rate` are also curves; kept in memory alone without a folder.

    `metrics.jsonl` is the record. `history.csv` is made of it, and holds nothing that depends on a clock.
    """

    def __init__(self, folder: Path | None, *, resume_at: int) -> None:
        """Keeps the rows of steps up to `resume_at`, and drops those that a killed run wrote after its checkpoint."""
        self.folder = folder
        self.rows = read_record(folder / RECORD_FILE) if folder else []
        self._columns: list[str] = []
        self.drop_after(resume_at)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds the row of a `step` above the last one's; a number that is not finite becomes null."""
        kept = _finite(row)
        self.rows.append(kept)
        if self.folder is None:
            return
        with (self.folder / RECORD_FILE).open("a", encoding="utf-8") as file:
            file.write(_json_line(kept))
        if not kept["losses"]:
            return
        if not set(_curves(kept)) <= set(self._columns):
            self._write_curves()
            return
        with (self.folder / CURVES_FILE).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(_printable(_curves(kept)))

    def drop_after(self, step: int) -> None:
        """Forgets the rows of later steps, in the files too."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        if self.folder:
            _replace(self.folder / RECORD_FILE, "".join(map(_json_line, self.rows)))
            self._write_curves()

    def mean_of_last(self, name: str, count: int) -> float:
        """The mean of one of the losses over the last rows.

        Raises: TrainingDivergedError where no row is of a step that was learnt from.
        """
        values = [value for row in self.rows if (value := row["losses"].get(name)) is not None][-count:]
        if not values:
            raise TrainingDivergedError("no step that was logged had a loss that could be learnt from: lower optimizer.learning_rate")
        return math.fsum(values) / len(values)

    def _write_curves(self) -> None:
        curves = [_curves(row) for row in self.rows if row["losses"]]
        self._columns = list(dict.fromkeys(["step", *(name for row in curves for name in row)]))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(map(_printable, curves))
        assert self.folder
        _replace(self.folder / CURVES_FILE, text.getvalue())


def read_record(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; none where it does not exist. It ends before a line that a kill or a broken disk left unreadable."""
    rows: list[Row] = []
    for line in _whole_lines(path).splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv, NaN where a column is empty; none where it does not exist. A last line cut short is left out."""
    rows: Sequence[Mapping[str, str]] = list(csv.DictReader(io.StringIO(_whole_lines(path), newline="")))
    return [{name: float(value or "nan") for name, value in row.items()} for row in rows]


def _whole_lines(path: Path) -> str:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")


def _curves(row: Row) -> dict[str, float | None]:
    return {"step": row["step"], **row["losses"], "grad_norm": row["grad_norm"], "learning_rate": row["learning_rate"]}


def _finite(value: Any) -> Any:
    """The same, as JSON can hold it."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json_line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _printable(row: Mapping[str, float | None]) -> dict[str, str]:
    return {name: "" if value is None else f"{value:.6g}" if name != "step" else str(value) for name, value in row.items()}


def _replace(path: Path, text: str) -> None:
    """The whole file appears, or the old one stays."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("w", newline="", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
