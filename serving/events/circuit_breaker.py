"""Stop calling a broken service; probe it with single calls until it works again."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


class CircuitBreaker:
    """Closed: every call passes. Open, after a failure: one call passes per pause, and the pause doubles, up to 30 s.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause_s = _FIRST_PAUSE_S
        self._opened_until: float | None = None

    @property
    def closed(self) -> bool:
        return self._opened_until is None

    def allows(self) -> bool:
        """Return whether to call now. While open: once per pause; that call is the probe."""
        if self._opened_until is None:
            return True
        if (now := self._clock()) < self._opened_until:
            return False
        self._opened_until = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """The call worked: close."""
        self._opened_until = None
        self._pause_s = _FIRST_PAUSE_S

    def failed(self) -> None:
        """The call failed: open, or stay open for longer."""
        if not self.closed:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._opened_until = self._clock() + self._pause_s
