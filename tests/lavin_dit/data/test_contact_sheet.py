from pathlib import Path

import pytest
from PIL import Image

from lavin_dit.data.contact_sheet import IMAGE_SHEET, VIDEO_SHEET, image_sheet, save_sheet, tasks_on, video_sheet
from lavin_dit.data.tasks import TASKS, Task
from lavin_dit.evaluation.metrics import KIND_METRICS

DOCS = Path(__file__).parents[3] / "docs"
SHEETS = {IMAGE_SHEET: "image", VIDEO_SHEET: "clip"}
MAX_BYTES = 400 * 1024


def table_rows(document: str) -> list[list[str]]:
    """The cells of every row of a document's tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in document.splitlines() if line.startswith("| ")]


def words_of(task: Task) -> list[str]:
    return [f"`{task.name}`", task.title, task.input, task.target, task.kind]


@pytest.mark.parametrize(("name", "medium"), SHEETS.items())
def test_the_sheets_in_the_docs_are_small_and_show_the_tasks_that_there_are(name: str, medium: str) -> None:
    path = DOCS / "images" / "tasks" / name
    assert tasks_on(path) == [task.name for task in TASKS.values() if task.medium == medium]
    assert path.stat().st_size <= MAX_BYTES


def test_the_docs_table_is_the_table_of_tasks() -> None:
    rows = [row for row in table_rows((DOCS / "tasks.md").read_text()) if row[0].startswith("`")]
    assert rows == [words_of(task) for task in TASKS.values()]


def test_the_docs_table_of_kinds_names_their_metrics() -> None:
    rows = {row[0]: row[-1] for row in table_rows((DOCS / "tasks.md").read_text()) if row[0] in KIND_METRICS}
    assert rows == {kind: ", ".join(f"`{metric}`" for metric in metrics) for kind, metrics in KIND_METRICS.items()}


def test_a_sheet_lists_the_tasks_that_it_shows(tmp_path: Path) -> None:
    for draw, names in ((image_sheet, ["depth", "denoising", "pose"]), (video_sheet, ["optical_flow"])):
        tasks = [TASKS[name] for name in names]
        sheet = draw(tasks)
        save_sheet(tmp_path / "sheet.png", sheet, tasks)
        assert tasks_on(tmp_path / "sheet.png") == names
        with Image.open(tmp_path / "sheet.png") as image:
            assert image.size == sheet.shape[1::-1]
