"""When to retry, and how long to wait before."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter; respects Retry-After.

    Attributes:
        attempts: number of tries, the first included; 1 never retries.
        first_delay_s: longest wait before the second try; it doubles with each further one.
        max_delay_s: longest wait. If the server asks for more, the call fails at once.
    """

    attempts: int = 4
    first_delay_s: float = 0.2
    max_delay_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_delay_s < 0 or self.max_delay_s < 0:
            raise ValueError(f"attempts must be at least 1 and delays not negative, got {self}")

    def delay_s(self, failures: int, retry_after_s: float | None = None) -> float | None:
        """Return the seconds to wait after so many failures, or None to give up.

        Draws the wait from the upper half of the interval, so that callers who failed together do not retry together.

        Args:
            failures: tries that failed so far; >= 1.
            retry_after_s: least wait that the server asked for, or None.
        """
        if failures >= self.attempts:
            return None
        longest = min(self.first_delay_s * 2.0 ** (failures - 1), self.max_delay_s)
        delay_s = longest * random.uniform(0.5, 1.0)
        if retry_after_s is None:
            return delay_s
        return max(retry_after_s, delay_s) if retry_after_s <= self.max_delay_s else None


def parse_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read a Retry-After header (RFC 9110: seconds, or a date) as seconds from now; None when absent or unreadable.

    Example:
        >>> parse_retry_after("2")
        2.0
    """
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max((when - (now or datetime.now(UTC))).total_seconds(), 0.0)
