"""The losses of a run as a CSV file that survives restarts without gaps or duplicates."""

import csv
import io
from pathlib import Path


class History:
    """Rows of numbers by step, appended to a CSV file whose first column is `step`; kept in memory alone without a path."""

    def __init__(self, path: Path | None, *, resume_at: int) -> None:
        """Keeps the rows of steps up to `resume_at` and drops those that a killed run wrote after its checkpoint."""
        self.path = path
        self.rows = [row for row in read_history(path) if row["step"] <= resume_at] if path else []
        self._rewrite()

    def add(self, step: int, values: dict[str, float]) -> None:
        # Rounded as they are written: a restarted run must remember what an uninterrupted one does.
        row = _parsed(_printable({"step": float(step), **values}))
        self.rows.append(row)
        if self.path is None:
            return
        if len(self.rows) == 1:
            self._rewrite()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, fieldnames=list(self.rows[0])).writerow(_printable(row))

    def mean_of_last(self, name: str, count: int) -> float:
        """The mean of a column over the last rows."""
        values = [row[name] for row in self.rows[-count:]]
        return sum(values) / len(values)

    def _rewrite(self) -> None:
        if self.path is None:
            return
        beside = self.path.with_name(f".{self.path.name}.tmp")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]) if self.rows else ["step"])
            writer.writeheader()
            writer.writerows(_printable(row) for row in self.rows)
        beside.replace(self.path)


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history file; none where it does not exist. A last line cut short by a kill is left out."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8")
    whole_lines = text[: text.rfind("\n") + 1]
    return [_parsed(row) for row in csv.DictReader(io.StringIO(whole_lines, newline=""))]


def _parsed(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def _printable(row: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" if name != "step" else str(int(value)) for name, value in row.items()}
