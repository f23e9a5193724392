"""Stop calling a broken service; probe it with single calls until it works again."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed: every call passes. Open, after a failure: one call passes per pause, and the pause doubles.

    Args:
        first_pause_s: pause after the first failure.
        longest_pause_s: the pause grows no longer.
        clock: seconds, monotonic.
    """

    def __init__(
        self, *, first_pause_s: float = 0.5, longest_pause_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._pause_s = first_pause_s
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
        self._pause_s = self._first_pause_s

    def failed(self) -> None:
        """The call failed: open, or stay open for longer."""
        if not self.closed:
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
        self._opened_until = self._clock() + self._pause_s
