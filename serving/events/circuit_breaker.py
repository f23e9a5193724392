"""Leave a broken service alone for a while, and find out by one call whether it is back."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed: calls go through. After a failure it is open, and lets one call through after a pause that doubles.

    Args:
        first_pause_s: how long it stays open after the first failure.
        longest_pause_s: what the pause grows to.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        first_pause_s: float = 0.5,
        longest_pause_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
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
        """Say whether to call now. While open, true once per pause: that call is the probe."""
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
