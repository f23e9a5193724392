"""Read the time of an interaction, in whatever unit the log keeps it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

BILLION = 10**9  # billionths in a unit, nanoseconds in a second

_SECONDS_END = 10**11  # a number of seconds from here on would lie past the year 5138: it has a smaller unit
_EXACT = Context(prec=60, rounding=ROUND_DOWN)  # more digits than the largest number has, with its billionths
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = re.compile(r"[.,]\d{6}(\d{1,3})")  # what follows the microseconds, which is where datetime stops

Time = tuple[int, int, bool]


def parse_timestamp(text: str) -> Time | None:
    """Parse one timestamp, exactly to a billionth of its unit.

    Returns:
        (a number since 1970 of a unit not known yet, the billionths of that unit beyond it, False); (seconds,
        nanoseconds, True) for ISO 8601, UTC unless it says otherwise; None when it is neither, or before 1970.

    Example:
        >>> parse_timestamp("874965478.25"), parse_timestamp("1970-01-01T01:00:00.5+00:00"), parse_timestamp("soon")
        ((874965478, 250000000, False), (3600, 500000000, True), None)
    """
    try:
        number, fraction = int(text), 0
    except ValueError:
        try:
            exact = Decimal(text)  # a float has no room for the fraction of a large number
        except InvalidOperation:
            return _parse_iso(text)
        if not (exact.is_finite() and 0 <= exact < 2**63):
            return None
        number, fraction = divmod(int(_EXACT.multiply(exact, BILLION)), BILLION)
    return (number, fraction, False) if 0 <= number < 2**63 else None


def find_unit(numbers: NDArray[np.int64]) -> tuple[str, int]:
    """Infer the unit of a log's numbers from their median: its name, and how many make a second.

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
    """Whether each number can be of that unit: bool [n]. Only seconds, which may number rows, begin before 1973."""
    start = 0 if ticks == 1 else _SECONDS_END * ticks // 1000
    return (numbers >= start) & (numbers // ticks < _SECONDS_END)


def to_seconds(
    numbers: NDArray[np.int64], fractions: NDArray[np.int64], ticks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Convert numbers that are `in_unit`, with their billionths, to seconds and nanoseconds.

    Example:
        >>> to_seconds(np.array([1588687728923]), np.array([500_000_000]), 1000)
        (array([1588687728]), array([923500000]))
    """
    seconds, rest = np.divmod(numbers, ticks)
    return seconds, rest * (BILLION // ticks) + fractions // ticks


def _parse_iso(text: str) -> Time | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    finer = _NANOSECONDS.search(text)
    nanoseconds = int(finer[1].ljust(3, "0")) if finer else 0
    if since < timedelta():
        return None
    return since.days * 86_400 + since.seconds, since.microseconds * 1000 + nanoseconds, True
