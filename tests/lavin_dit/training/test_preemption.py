import os
import signal
import threading

import pytest

from lavin_dit.errors import PreemptedError
from lavin_dit.training.preemption import StopRequest


def send_to_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def note_and_save(request: StopRequest) -> None:
    assert not request.is_made
    send_to_self()
    send_to_self()
    assert request.is_made
    raise PreemptedError(3)


def test_sigterm_is_noted_and_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(PreemptedError), StopRequest() as request:
        note_and_save(request)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_signals_stay_what_they_are() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    with StopRequest():
        assert {number: signal.getsignal(number) for number in before} == before


def test_a_request_that_nobody_followed_is_made_again() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        with StopRequest():
            send_to_self()
            assert received == []
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_does_not_listen() -> None:
    before, made = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopRequest() as request:
            assert signal.getsignal(signal.SIGTERM) is before
            made.append(request.is_made)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made == [False]
