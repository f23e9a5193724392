import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.tables.timestamps import find_unit, in_unit, parse_timestamp, to_seconds

TICKS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("0", (0, 0, False)),
        ("964982703", (964982703, 0, False)),
        ("964982703.9", (964982703, 900_000_000, False)),
        ("964982703.", (964982703, 0, False)),
        ("0.25", (0, 250_000_000, False)),
        ("1.5e9", (1_500_000_000, 0, False)),
        ("1.7000000002500000E9", (1_700_000_000, 250_000_000, False)),
        ("9223372036854775807.999999999", (2**63 - 1, 999_999_999, False)),
        ("1.9999999999999999999", (1, 999_999_999, False)),  # cut, not rounded up to another second
        ("1e-999999", (0, 0, False)),
        ("1970-01-02", (86_400, 0, True)),
        ("1970-01-01T00:00:01.5Z", (1, 500_000_000, True)),
        ("1970-01-01T00:00:01.123456789Z", (1, 123_456_789, True)),
        ("1970-01-01 00:00:01.1234567+00:00", (1, 123_456_700, True)),
        ("1970-01-01 02:00:00+02:00", (0, 0, True)),
        ("9999-12-31T23:59:59.999999Z", (253_402_300_799, 999_999_000, True)),  # beyond what a float counts in
        *((text, None) for text in ("", "soon", "-1", "-0.5", "nan", "snan", "inf", "1969-12-31")),
        *((text, None) for text in ("1e40", "1e999999999", "1e99999999999999999999", "9" * 30, "9" * 5000)),
        ("1969-12-31T23:59:59.9Z", None),
    ],
)
def test_one_timestamp(text: str, parsed: tuple[int, int, bool] | None) -> None:
    assert parse_timestamp(text) == parsed


@given(st.integers(0, 2**63 - 1), st.text("0123456789", max_size=12))
def test_every_digit_down_to_a_billionth_counts(whole: int, digits: str) -> None:
    """Read digit by digit, without arithmetic."""
    assert parse_timestamp(f"{whole}.{digits}") == (whole, int(digits[:9].ljust(9, "0")), False)


@given(st.sampled_from(sorted(TICKS)), st.lists(st.integers(10**8, 10**10), min_size=1), st.integers(0, 10**9 - 1))
def test_the_unit_is_found_and_seconds_come_back(unit: str, seconds: list[int], nanosecond: int) -> None:
    """Any log between 1973 (10**8 s) and 2286 (10**10 s), in each unit, with what its fraction adds."""
    ticks = TICKS[unit]
    if ticks == 10**9 and max(seconds) >= 9 * 10**9:
        return  # nanoseconds after 2255 do not fit into 64 bits
    moments = [second * 10**9 + nanosecond for second in seconds]
    texts = [f"{moment * ticks // 10**9}.{moment * ticks % 10**9:09}" for moment in moments]
    parsed = [found for found in map(parse_timestamp, texts) if found]
    numbers, fractions = (np.array([found[at] for found in parsed], dtype=np.int64) for at in (0, 1))
    assert find_unit(numbers) == (unit, ticks)
    assert in_unit(numbers, ticks).all()
    found_seconds, nanoseconds = to_seconds(numbers, fractions, ticks)
    assert found_seconds.tolist() == seconds
    assert nanoseconds.tolist() == [nanosecond] * len(seconds)


def test_numbers_of_another_unit_are_told_apart() -> None:
    numbers = np.array([1_500_000_000, 1_500_000_000_000, 0])
    assert in_unit(numbers, 1).tolist() == [True, False, True]
    assert in_unit(numbers, 1000).tolist() == [False, True, False]
