import json
import re
from pathlib import Path

import yaml

from lavin_dit.config import SourceConfig
from lavin_dit.data.readers.catalogue import READERS, check_tasks
from lavin_dit.data.readers.pascal_voc import CLASS_TASKS, PASCAL_5I

PAGE = (Path(__file__).parents[4] / "docs" / "datasets.md").read_text(encoding="utf-8")
SNIPPETS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
SOURCES = [SourceConfig.model_validate_json(json.dumps(entry)) for snippet in SNIPPETS for entry in snippet if isinstance(entry, dict)]


def test_every_reader_has_a_source_to_copy_that_asks_for_tasks_it_gives() -> None:
    assert {source.reader for source in SOURCES} == READERS.keys()
    for source in SOURCES:
        check_tasks(source.reader, source.tasks)


def test_the_table_of_the_page_is_that_of_the_readers() -> None:
    rows = {
        cells[0].strip("`"): cells for cells in (re.split(r" *\| *", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| `"))
    }
    assert rows.keys() == READERS.keys()
    for name, (_, pairs, photos, *_) in rows.items():
        tasks = [task for task in READERS[name].tasks if task not in CLASS_TASKS]
        written = [task for task in pairs.split(", ") if task and "<class>" not in task]
        assert written == tasks
        assert photos == ("yes" if READERS[name].gives_photos else "no")


def test_the_page_holds_out_the_first_fold_and_names_the_classes_of_all() -> None:
    assert [tuple(snippet) for snippet in SNIPPETS if isinstance(snippet[0], str)] == [PASCAL_5I[0]]
    for fold in PASCAL_5I[1:]:
        *others, last = (task.removeprefix("foreground-") for task in fold)
        assert f"{', '.join(others)} and {last}" in PAGE
