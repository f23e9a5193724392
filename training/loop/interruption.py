"""SIGTERM and SIGINT end a run at a point from which it can go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from training.errors import StoppedError


class Interruption:
    """A signal that came while a run was busy.

    Between updates the loop looks at `signal` and saves before it raises. Long steps that a saved run repeats anyway
    (a validation, a measurement of d_t) go inside `at_once`: there the signal raises where it hits.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._raises = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Until the context closes, a signal raises `StoppedError` wherever it comes; one that came before does now."""
        self._raises = True
        try:
            if self.signal is not None:
                self.stop()
            yield
        finally:
            self._raises = False

    def stop(self) -> NoReturn:
        """Raise `StoppedError` for the signal that came, or that came to another process of the run."""
        raise StoppedError(self.signal or signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        if self._raises:
            self.stop()


@contextmanager
def catch_signals() -> Iterator[Interruption]:
    """Note SIGTERM and SIGINT in the yielded object instead of dying; the old handlers come back at the end.

    Outside the main thread, where Python delivers no signals, nothing is caught.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    former = {number: signal.signal(number, interruption._receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
