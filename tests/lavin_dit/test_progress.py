import logging

import pytest

from lavin_dit.progress import INTERVAL_VARIABLE, PROGRESS_LINE, Progress


@pytest.fixture(autouse=True)
def _every_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    caplog.set_level(logging.INFO, logger="lavin_dit.progress")


@pytest.mark.parametrize("note", ["", "loss 0.1234"])
@pytest.mark.parametrize("name", ["train ST-VAE", "depth 3/10 query"])
def test_a_line_says_what_how_far_and_how_long(name: str, note: str) -> None:
    progress = Progress(name, 40, done=10)
    progress.advance(10)
    found = PROGRESS_LINE.search(progress.line(note))
    assert found is not None
    assert (found["name"], found["done"], found["total"], found["note"]) == (name, "20", "40", note)
    assert float(found["rate"]) > 0


def test_the_rate_counts_only_what_this_process_did() -> None:
    progress = Progress("train", 1000, done=900)
    assert " 900/1000 0/s eta 0s" in progress.line()


def test_lines_are_logged_where_there_is_no_terminal(caplog: pytest.LogCaptureFixture) -> None:
    with Progress("render", 3) as progress:
        for _ in range(3):
            progress.advance(note="x")
    assert len(caplog.messages) == 3
    assert all(PROGRESS_LINE.fullmatch(message) for message in caplog.messages)


def test_lines_keep_their_distance_and_the_last_one_always_comes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERVAL_VARIABLE, "3600")
    with Progress("render", 100) as progress:
        for _ in range(100):
            progress.advance()
    assert len(caplog.messages) == 1
    assert "render 100/100" in caplog.messages[0]


def test_a_silent_process_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Progress("render", 1, silent=True) as progress:
        progress.advance()
    assert caplog.messages == []
