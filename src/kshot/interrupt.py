"""Ctrl-C and SIGTERM: they end a training between two steps, where its state is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 5.0
"""Seconds for the other processes to end the step in which a signal came."""


class GaveUpWaitingError(KeyboardInterrupt):
    """The user asked to stop, but another process does not answer; the state is whole."""


class Stop:
    """Whether and when the user has asked to stop."""

    def __init__(self) -> None:
        self.at: float | None = None

    @property
    def asked(self) -> bool:
        """Whether there was a signal."""
        return self.at is not None

    def while_waiting(self) -> None:
        """Raise GaveUpWaitingError if the user asked to stop a while ago."""
        if self.at is not None and time.monotonic() - self.at > GRACE:
            raise GaveUpWaitingError


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block a first signal only asks to stop; a second one interrupts at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.at = time.monotonic()

    with _handling(ask, signal.SIGINT, signal.SIGTERM):
        yield stop


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does, so that all blocks can clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def signals_later() -> Iterator[None]:
    """Within the block no signal is heard; those that came are raised right after it."""
    came: list[int] = []
    try:
        with _handling(lambda number, _: came.append(number), signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], None], *signals: signal.Signals
) -> Iterator[None]:
    """Handle signals so within the block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
