import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.tables.timestamps import find_unit, in_unit, parse_timestamp, to_microseconds

TICKS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("0", (0, False)),
        ("964982703", (964982703, False)),
        ("964982703.9", (964982703, False)),
        ("1.5e9", (1_500_000_000, False)),
        ("1970-01-02", (86_400_000_000, True)),
        ("1970-01-01T00:00:01.5Z", (1_500_000, True)),
        ("1970-01-01 02:00:00+02:00", (0, True)),
        *((text, None) for text in ("", "soon", "-1", "nan", "inf", "1e40", "1969-12-31", "9" * 30)),
    ],
)
def test_one_timestamp(text: str, parsed: tuple[int, bool] | None) -> None:
    assert parse_timestamp(text) == parsed


@given(st.sampled_from(sorted(TICKS)), st.lists(st.integers(10**8, 10**10), min_size=1))
def test_the_unit_is_found_and_seconds_come_back(unit: str, seconds: list[int]) -> None:
    """Any log between 1973 (10**8 s) and 2286 (10**10 s), in each unit."""
    ticks = TICKS[unit]
    numbers = np.array(seconds, dtype=np.int64) * np.int64(ticks) if ticks < 10**9 or max(seconds) < 9 * 10**9 else None
    if numbers is None:
        return  # nanoseconds after 2255 do not fit into 64 bits
    assert find_unit(numbers) == (unit, ticks)
    assert in_unit(numbers, ticks).all()
    assert to_microseconds(numbers, ticks).tolist() == [second * 1_000_000 for second in seconds]


def test_numbers_of_another_unit_are_told_apart() -> None:
    numbers = np.array([1_500_000_000, 1_500_000_000_000, 0])
    assert in_unit(numbers, 1).tolist() == [True, False, True]
    assert in_unit(numbers, 1000).tolist() == [False, True, False]
