"""Signals ask first and interrupt then."""

import os
import signal
import threading

import pytest

from kshot import interrupt
from kshot.interrupt import (
    GaveUpWaitingError,
    interrupted_by_sigterm,
    signals_later,
    stop_on_signals,
)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.asked
        send(number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            send(number)
    assert signal.getsignal(number) == before


def test_waiting_ends_some_time_after_a_signal(monkeypatch):
    with stop_on_signals() as stop:
        stop.while_waiting()
        send(signal.SIGTERM)
        stop.while_waiting()
        monkeypatch.setattr(interrupt, "GRACE", 0.0)
        with pytest.raises(GaveUpWaitingError):
            stop.while_waiting()


def test_sigterm_as_an_interrupt():
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        send(signal.SIGTERM)


def test_other_threads_leave_the_signals_alone():
    asked = []

    def work():
        with stop_on_signals() as stop:
            asked.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


def test_a_signal_waits_for_what_must_not_be_cut():
    done = []

    def work():
        with signals_later():
            send(signal.SIGTERM)
            done.append("first")
        done.append("second")

    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        work()
    assert done == ["first"]
