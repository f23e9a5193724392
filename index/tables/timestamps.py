"""Read the time of an interaction, in whatever unit the log keeps it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

MICROSECONDS = 1_000_000  # in a second

_SECONDS_END = 10**11  # a number of seconds from here on would lie past the year 5138: it has a smaller unit


def parse_timestamp(text: str) -> tuple[int, bool] | None:
    """Parse one timestamp.

    Returns:
        (a number since 1970 of a unit not known yet, False); (microseconds, True) for ISO 8601, UTC unless it says
        otherwise; None when it is neither, or before 1970.

    Example:
        >>> parse_timestamp("874965478"), parse_timestamp("1970-01-01T01:00+00:00"), parse_timestamp("soon")
        ((874965478, False), (3600000000, True), None)
    """
    try:
        number = int(text)
    except ValueError:
        try:
            number = int(float(text))
        except OverflowError:
            return None
        except ValueError:
            return _parse_iso(text)
    return (number, False) if 0 <= number < 2**63 else None


def find_unit(numbers: NDArray[np.int64]) -> tuple[str, int]:
    """Tell the unit of a log's numbers from their median: its name, and how many make a second.

    Example:
        >>> find_unit(np.array([1588687728923, 1588687728924]))
        ('milliseconds', 1000)
    """
    median = float(np.median(numbers)) if len(numbers) else 0.0
    ticks = 1
    for name in ("seconds", "milliseconds", "microseconds"):
        if median < _SECONDS_END * ticks:
            return name, ticks
        ticks *= 1000
    return "nanoseconds", ticks


def in_unit(numbers: NDArray[np.int64], ticks: int) -> NDArray[np.bool_]:
    """Say of each number whether it can be of that unit: where 1 is not a row's place, nothing lies before 1973."""
    start = 0 if ticks == 1 else _SECONDS_END * ticks // 1000
    return (numbers >= start) & (numbers // ticks < _SECONDS_END)


def to_microseconds(numbers: NDArray[np.int64], ticks: int) -> NDArray[np.int64]:
    """Convert numbers that are `in_unit`."""
    return numbers * (MICROSECONDS // ticks) if ticks <= MICROSECONDS else numbers // (ticks // MICROSECONDS)


def _parse_iso(text: str) -> tuple[int, bool] | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return (round(seconds * MICROSECONDS), True) if seconds >= 0 else None
