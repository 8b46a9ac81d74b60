import math
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lavin_dit.data.shards.picture_files import encode_png
from lavin_dit.data.tasks import TASKS, ImagePair, Task, task_of
from lavin_dit.data.world.layout import CLASSES
from lavin_dit.evaluation.metrics import KIND_CLASSES, KIND_METRICS, Measurement, pool_confusion
from lavin_dit.evaluation.report import Example, Report, render
from lavin_dit.evaluation.results import ANSWERS, MODEL, TaskResult

VOID = {"meta", "link", "img", "br", "hr", "use", "path"}
LOADING = {"src", "href", "srcset", "poster", "data", "action"}
NASTY = '<script>alert("&")</script>'


class Page(HTMLParser):
    """What a page holds; fails where a tag is closed that is not the open one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def task_result(task: Task, model: float = 0.5) -> TaskResult:
    if classes := KIND_CLASSES.get(task.kind):
        counts = np.eye(len(classes), dtype=np.int64) * 7 + 1
        return TaskResult(task, 4, dict.fromkeys(ANSWERS, pool_confusion(counts)))
    values = {answer: model if answer == MODEL else 0.25 for answer in ANSWERS}
    return TaskResult(task, 4, {answer: Measurement(dict.fromkeys(KIND_METRICS[task.kind], value)) for answer, value in values.items()})


def sample_report(**changes: object) -> Report:
    results = [task_result(task) for task in TASKS.values()]
    example = Example((ImagePair(picture(0), picture(1)), ImagePair(picture(2), picture(3))), picture(4), picture(5), picture(6))
    fields = {
        "results": results,
        "num_pairs": 2,
        "examples": {result.task.name: [example, example] for result in results},
        "histories": {"ST-VAE": [{"step": step, "loss": 1 / (step + 1)} for step in range(40)], "J-DiT": []},
        "reconstructions": [encode_png(np.concatenate([picture(7), picture(8)], axis=1))],
        "facts": {"Code": {"git commit": "0123abc"}},
        "configs": {"evaluate": '{"seed": 0}'},
    }
    return Report(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_page_asks_for_nothing_from_outside() -> None:
    text = render(sample_report())
    page = Page(text)
    loads = [value or "" for _, attributes in page.tags for name, value in attributes.items() if name in LOADING]
    assert loads
    assert all(value.startswith(("data:", "#")) for value in loads)
    assert "http" not in text
    assert "@import" not in text
    assert not page.all("script")
    assert "url(" not in text.replace("url(#", "")


def test_the_page_shows_every_task_with_its_sentence_and_its_pictures() -> None:
    page = Page(render(sample_report()))
    for task in TASKS.values():
        assert task.summary in page.text
        assert any(attributes.get("id") == f"task-{task.name}" for attributes in page.all("h2"))
    pictures = [attributes for attributes in page.all("img") if "pixelated" in (attributes.get("class") or "")]
    assert len(pictures) == len(TASKS) * 2 * 7 + 1


def test_every_picture_has_words_and_every_link_a_place() -> None:
    page = Page(render(sample_report()))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for attributes in page.all("a")} <= {f"#{name}" for name in ids}


def test_the_headline_counts_the_tasks_that_beat_both_baselines() -> None:
    results = [task_result(TASKS["denoising"], 0.9), task_result(TASKS["deblurring"], 0.1)]
    assert "Beats both baselines on 1 of 2 tasks" in Page(render(sample_report(results=results, examples={}))).text


def test_the_confusion_of_labels_is_shown_with_the_names_of_the_classes() -> None:
    page = Page(render(sample_report(results=[task_result(TASKS["semantic"])], examples={})))
    assert all(page.text.count(name) >= 2 for name in CLASSES)


def test_nan_is_shown_as_missing_and_breaks_nothing() -> None:
    results = [task_result(TASKS["depth"], math.nan), task_result(TASKS["denoising"], math.nan)]
    text = Page(render(sample_report(results=results, examples={}, histories={"J-DiT": [{"step": 1.0, "loss": math.nan}]}))).text
    assert "n/a" in text
    assert "nan" not in text.lower()
    assert "on 0 of 2 tasks" in text


def test_what_is_absent_is_left_out() -> None:
    text = render(sample_report(examples={}, histories={}, reconstructions=[], configs={}))
    assert not Page(text).all("img")


def test_text_from_users_is_shown_and_never_obeyed() -> None:
    own = task_of(NASTY)
    report = sample_report(
        results=[task_result(own)],
        examples={},
        facts={NASTY: {NASTY: NASTY}},
        configs={NASTY: NASTY},
        histories={NASTY: [{"step": 0.0, NASTY: 1.0}, {"step": 1.0, NASTY: 0.5}]},
    )
    page = Page(render(report))
    assert not page.all("script")
    assert NASTY in page.text


def test_equal_reports_give_equal_pages() -> None:
    assert render(sample_report()) == render(sample_report())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_the_page(tmp_path: Path, width: int) -> None:
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(render(sample_report()), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"]
    subprocess.run(
        ["chromium", *flags, f"--window-size={width},900", f"--screenshot={shot}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert struct.unpack(">II", shot.read_bytes()[16:24]) == (width, 900)
